"""Which axis holds the channels: found from the operations, and used by maps, numbers and clicks alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.tiles import planes, unit_at
from nnviz_widget.engine.trace import Trace
from tests.models import TinyVit, image, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Callable


def axes(model: nn.Module, *args: Tensor) -> dict[str, int]:
    trace = Trace(record(model, args))
    return {name: trace.channel_axis(name) for name in trace.refs}


def run(forward: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, int]:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    return axes(Model(), x)


def test_channels_of_a_convolutional_network_come_first() -> None:
    trace = Trace(record(vision("resnet50"), (image(1, 64),)))
    assert {trace.channel_axis(name) for name in trace.refs} == {1}


def test_blocks_of_swin_have_their_channels_last() -> None:
    trace = Trace(record(vision("swin_t"), (image(1, 64),)))
    for node in [*trace.graph.nodes, *trace.graph.groups]:
        ref = trace.refs.get(node.id)
        shape = trace.ops[ref.op].outputs[ref.port].shape if ref else ()
        # All but the convolution at the start and what follows the permutation at the end.
        first = node.id in {"input", "features.0.0", "permute", "avgpool"}
        if len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2]:
            assert trace.channel_axis(node.id) == (1 if first else 3), node.id
    # In the attention, the second axis counts the heads.
    assert trace.channel_axis("features.1.0.attn/softmax") == 1
    assert trace.channel_axis("features.1.0.attn/linear") == 2


def test_blocks_of_convnext_have_them_last_between_two_permutations() -> None:
    found = axes(vision("convnext_tiny"), image(1, 64))
    assert [found[f"features.1.0.block.{i}"] for i in range(7)] == [1, 3, 3, 3, 3, 3, 1]
    assert [found[f"features.0.1{end}"] for end in ("/permute", "/layer_norm", "/permute#1", "")] == [
        3,
        3,
        1,
        1,
    ]


def test_tokens_of_a_vision_transformer_have_features_last() -> None:
    found = axes(seeded(TinyVit), image(1, 16))
    assert found["patches"] == 1
    assert found["/flatten"] == 1
    assert found["/transpose"] == found["encoder"] == found["encoder.layers.1.linear1"] == 2


def test_a_series_is_told_from_its_steps_also_in_one_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 8, 3)
            self.lstm = nn.LSTM(8, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]

    found = axes(seeded(Model), torch.randn(2, 20, 3))
    assert [found[name] for name in ("input", "/transpose", "conv", "/transpose#1", "lstm")] == [
        2,
        1,
        1,
        2,
        2,
    ]


def test_an_image_with_its_colours_last_is_known_by_the_convolution_that_reads_it() -> None:
    weight = torch.randn(4, 3, 3, 3)
    found = run(lambda x: torch.conv2d((x * 2 - 1).permute(0, 3, 1, 2), weight), torch.randn(1, 9, 8, 3))
    assert (found["input"], found["/mul"], found["/permute"], found["/conv2d"]) == (3, 3, 1, 1)


@pytest.mark.parametrize(
    ("change", "axis"),
    [
        (lambda x: x.permute(0, 2, 3, 1), 3),
        (lambda x: torch.permute(x, dims=(0, -2, -1, 1)), 3),
        (lambda x: x.permute([0, 2, 1, 3]), 2),
        (lambda x: x.movedim(1, -1), 3),
        (lambda x: x.movedim((1, 2), (3, 1)), 3),
        (lambda x: x.transpose(-1, 1), 3),
        (lambda x: x.swapaxes(2, 3), 1),
        (lambda x: x.flatten(2), 1),
        (lambda x: x.movedim(1, -1).flatten(1, 2), 2),
        (lambda x: x.unsqueeze(1), 2),
        (lambda x: x.movedim(1, -1).reshape(1, 2, 3, 2, 4, 5), 5),
        (lambda x: x[:, :2, 1:], 1),
        (lambda x: torch.cat([x, x], 1) + 1, 1),
        (lambda x: torch.roll(x.movedim(1, -1), 1, 1).softmax(-1), 3),
        (lambda x: nn.functional.linear(x, torch.ones(3, 8)), 1),  # along each row
        (lambda x: nn.functional.layer_norm(x, x.shape[1:]), 1),
    ],
)
def test_every_change_of_shape_carries_the_axis_along(change: Callable[[Tensor], Tensor], axis: int) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return change(self.conv(x))

    found = axes(seeded(Model), torch.randn(1, 3, 6, 8))
    assert found["output"] == axis
    # What differs from channel to channel alone is constant in each slice along that axis.
    marks = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 6, 8)
    slices = change(marks).movedim(axis, 0).flatten(1)
    torch.testing.assert_close(slices, slices[:, :1].expand_as(slices))
    assert not torch.equal(slices[0], slices[1])


@pytest.mark.parametrize(("shape", "axis"), [((1, 5, 6, 4), 3), ((1, 5, 4, 6), 2), ((1, 3, 5, 6, 4), 4)])
def test_a_place_in_the_picture_leads_back_to_its_unit(shape: tuple[int, ...], axis: int) -> None:
    activation = torch.arange(torch.Size(shape).numel()).reshape(shape)
    kind, stack = planes(activation, axis=axis)
    assert kind == "maps"
    assert stack.shape == (4, 5, 6)
    assert activation[0][unit_at(shape, (3, 4, 2), axis=axis)] == stack[3, 4, 2]


def test_maps_of_a_block_of_swin_are_its_channels() -> None:
    model, x = vision("swin_t"), image(1, 64)
    with Engine(model) as engine:
        trace = engine.trace(x)
        activation = trace.activation("features.1.0")
        tiles = engine.tiles(trace, "features.1.0")
        assert tiles.shape == (96, 16, 16)
        torch.testing.assert_close(torch.tensor(tiles.low), activation[0].amin((0, 1)))
        torch.testing.assert_close(torch.tensor(tiles.high), activation[0].amax((0, 1)))
        one = trace.stats("features.1.0", channel=40)
        assert one.numel == 256
        assert one.mean == pytest.approx(activation[0, ..., 40].mean().item(), abs=1e-6)


def test_a_click_into_a_block_of_swin_is_answered_for_the_unit_under_it() -> None:
    model, x = vision("swin_t"), image(1, 64)
    w = nnviz.explore(model, x)
    try:
        w.select("features.1.0", channel=40, pixel=(3, 12))
        one = x.clone().requires_grad_()
        features = model.features[1][0](model.features[0](one))
        (expected,) = torch.autograd.grad(features[0, 3, 12, 40], one)
        torch.testing.assert_close(torch.as_tensor(w.saliency), expected[0])
    finally:
        w.close()
