"""Tiles against a plain float64 reference, channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnviz_widget.engine.tiles import planes, tiles, unit_at
from nnviz_widget.errors import InputError


def reference(plane: torch.Tensor) -> tuple[np.ndarray, float, float, float]:
    values = plane.double().numpy()
    low, high = values.min(), values.max()
    span = high - low or 1.0
    return (values - low) / span * 255, low, high, np.abs(values).mean()


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 64, 56, 56), (1, 3, 1, 1)])
def test_each_channel_is_stretched_over_its_own_range(shape):
    activation = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    drawn = tiles(activation, sample=0)
    assert drawn.kind == "maps"
    assert drawn.shape == shape[1:]
    assert drawn.values.shape == shape[1:]
    for channel in range(shape[1]):
        exact, low, high, strength = reference(activation[0, channel])
        assert np.abs(drawn.values[channel] - exact).max() <= 0.51
        assert drawn.low[channel] == pytest.approx(low)
        assert drawn.high[channel] == pytest.approx(high)
        assert drawn.strength[channel] == pytest.approx(strength, rel=1e-5)


def test_bytes_and_range_give_the_value_back_within_half_a_step():
    activation = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 30
    drawn = tiles(activation)
    span = (drawn.high - drawn.low)[:, None, None]
    back = drawn.low[:, None, None] + drawn.values / 255 * span
    assert (np.abs(back - activation[0].numpy()) <= span / 255 * 0.51).all()


def test_a_constant_channel_is_all_zero_with_an_empty_range():
    drawn = tiles(torch.full((1, 2, 3, 3), 4.0))
    assert not drawn.values.any()
    assert (drawn.low == 4).all()
    assert (drawn.high == 4).all()


def test_nan_and_inf_are_counted_and_kept_out_of_the_range():
    activation = torch.arange(18.0).reshape(1, 2, 3, 3)
    activation[0, 0, 0, 0] = torch.nan
    activation[0, 0, 1, 1] = torch.inf
    activation[0, 0, 2, 2] = -torch.inf
    drawn = tiles(activation)
    assert drawn.bad.tolist() == [3, 0]
    assert (drawn.low[0], drawn.high[0]) == (1, 7)
    assert drawn.strength[0] == pytest.approx(np.mean([1, 2, 3, 5, 6, 7]))
    assert drawn.values[0, 0, 0] == drawn.values[0, 2, 2] == 0
    assert drawn.values[0].max() == 255
    assert (drawn.low[1], drawn.high[1]) == (9, 17)


def test_a_channel_without_a_finite_value_is_blank():
    drawn = tiles(torch.full((1, 1, 2, 2), torch.nan))
    assert drawn.bad.tolist() == [4]
    assert not drawn.values.any()
    assert np.isfinite([drawn.low[0], drawn.high[0], drawn.strength[0]]).all()


def test_the_largest_floats_do_not_overflow():
    most = torch.finfo(torch.float32).max
    drawn = tiles(torch.tensor([[[[-most, 0.0, most]]]]))
    assert np.abs(drawn.values.ravel().astype(int) - [0, 127.5, 255]).max() < 1


def test_large_maps_are_averaged_down_and_keep_their_range():
    activation = torch.arange(256 * 256, dtype=torch.float32).reshape(1, 1, 256, 256)
    drawn = tiles(activation, max_side=64)
    assert drawn.values.shape == (1, 64, 64)
    assert drawn.shape == (1, 256, 256)
    assert drawn.scale == 0.25
    block = activation[0, 0].double().reshape(64, 4, 64, 4).mean((1, 3)).numpy()
    assert np.abs(drawn.values[0] - block / (256 * 256 - 1) * 255).max() <= 0.51
    assert (drawn.low[0], drawn.high[0]) == (0, 256 * 256 - 1)


def test_a_vector_is_one_row():
    drawn = tiles(torch.tensor([[0.0, 1.0, 2.0]]))
    assert (drawn.kind, drawn.shape) == ("vector", (1, 1, 3))
    assert drawn.values.tolist() == [[[0, 128, 255]]]


def test_tokens_become_one_column_per_feature():
    activation = torch.randn(1, 17, 6, generator=torch.Generator().manual_seed(2))
    drawn = tiles(activation, patches=True)
    assert (drawn.kind, drawn.shape, drawn.grid) == ("tokens", (6, 17, 1), (4, 4, 1))
    assert drawn.high[2] == activation[0, :, 2].max()


@pytest.mark.parametrize(
    ("count", "grid"),
    [(196, (14, 14, 0)), (197, (14, 14, 1)), (198, (14, 14, 2)), (201, (14, 14, 5)), (7, None)],
)
def test_patches_lie_on_a_square_beside_the_extra_tokens(count, grid):
    assert tiles(torch.zeros(1, count, 2), patches=True).grid == grid


def test_tokens_of_a_text_have_no_grid():
    assert tiles(torch.zeros(1, 16, 2)).grid is None


def test_a_series_has_channels_of_height_one():
    activation = torch.randn(1, 3, 11)
    kind, stack = planes(activation, axis=1)
    assert kind == "maps"
    assert torch.equal(stack[:, 0], activation[0])


def test_a_volume_shows_its_middle():
    activation = torch.randn(1, 2, 5, 4, 3)
    assert torch.equal(planes(activation)[1], activation[0, :, 2])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64]
)
def test_every_type_is_drawn(dtype):
    activation = torch.tensor([[[[0, 1], [1, 0]]]]).to(dtype)
    assert tiles(activation).values.tolist() == [[[0, 255], [255, 0]]]


def test_an_empty_activation_is_an_empty_picture():
    assert tiles(torch.zeros(1, 0, 4, 4)).values.shape == (0, 4, 4)
    assert tiles(torch.zeros(1, 3, 0, 4)).values.shape == (3, 0, 4)


def test_channels_are_chosen_in_the_order_asked_for():
    activation = torch.randn(1, 4, 2, 2)
    assert (tiles(activation, channels=[3, 1]).low == activation[0, [3, 1]].amin((1, 2)).numpy()).all()


def test_what_does_not_exist_is_refused_in_words():
    with pytest.raises(InputError, match=r"no sample 2 in a batch of 2"):
        tiles(torch.zeros(2, 1, 2, 2), sample=2)
    with pytest.raises(InputError, match=r"no channel 9; this layer has 4"):
        tiles(torch.zeros(1, 4, 2, 2), channels=[9])


def test_the_activation_is_left_alone():
    activation = torch.randn(1, 3, 200, 200)
    before = activation.clone()
    tiles(activation)
    assert torch.equal(activation, before)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 4, 11), (1, 2, 5, 4, 3), (1, 2, 7, 5, 4, 3)])
def test_a_place_in_the_picture_leads_back_to_its_unit(shape):
    activation = torch.arange(torch.Size(shape).numel()).reshape(shape)
    _, stack = planes(activation, axis=1)
    place = (1, stack.shape[1] - 1, 2)
    assert activation[0][unit_at(shape, place)] == stack[place]


def test_an_index_of_a_token_or_an_entry_stays_as_it_is():
    assert unit_at((1, 9, 5), (3, 2)) == (3, 2)
    assert unit_at((1, 10), (7,)) == (7,)
