"""Samples as people look at them, whatever shape and range they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnviz_widget.explorer.pictures import (
    IMAGENET,
    MAX_THUMBNAILS,
    draw_sample,
    draw_thumbnails,
    read_denormalize,
)

PIXELS = torch.randint(0, 256, (2, 3, 6, 4), generator=torch.Generator().manual_seed(0))
EXPECTED = PIXELS[1].permute(1, 2, 0).numpy()
UNIT = PIXELS / 255
MEAN, STD = (torch.tensor(values).reshape(1, 3, 1, 1) for values in IMAGENET)


@pytest.mark.parametrize(
    ("batch", "denormalize"),
    [
        (UNIT, None),
        (PIXELS.float(), None),
        ((UNIT - MEAN) / STD, "imagenet"),
        ((UNIT - MEAN) / STD, IMAGENET),
        ((UNIT - 0.5) / 0.25, (0.5, 0.25)),
        (UNIT * 2 - 1, lambda x: (x + 1) / 2),
        (UNIT * 2 - 1, lambda x: ((x + 1) / 2)[0]),
        (UNIT * 2 - 1, lambda x: ((x[0] + 1) / 2).permute(1, 2, 0).numpy()),
        (UNIT, lambda x: (x * 255).round().byte()),
    ],
)
def test_every_way_of_undoing_gives_back_the_pixels(batch, denormalize):
    picture = draw_sample(batch, 1, read_denormalize(denormalize, batch))
    assert picture.kind == "image"
    assert np.abs(picture.rgb.astype(int) - EXPECTED).max() <= 1


def test_unknown_ranges_are_stretched_over_the_batch_so_that_samples_compare():
    batch = torch.stack([torch.full((1, 2, 2), -3.0), torch.full((1, 2, 2), 5.0)])
    undo = read_denormalize(None, batch)
    assert (draw_sample(batch, 0, undo).rgb == 0).all()
    assert (draw_sample(batch, 1, undo).rgb == 255).all()


@pytest.mark.parametrize(
    ("shape", "kind", "drawn"),
    [
        ((2, 1, 5, 4), "image", (5, 4, 3)),
        ((2, 4, 5, 4), "image", (5, 4, 3)),
        ((2, 9, 5, 4), "image", (5, 4, 3)),
        ((2, 7), "vector", (1, 7, 3)),
        ((2,), "vector", (1, 1, 3)),
        ((2, 6, 5), "other", (6, 5, 3)),
        ((2, 3, 4, 5, 6), "other", (0, 0, 3)),
    ],
)
def test_inputs_of_every_rank_have_a_picture_or_an_empty_one(shape, kind, drawn):
    batch = torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    undo = read_denormalize(None, batch)
    picture = draw_sample(batch, 0, undo)
    assert (picture.kind, picture.rgb.shape) == (kind, drawn)
    assert len(draw_thumbnails(batch, 4, undo)) == 2


def test_token_ids_and_values_that_are_no_numbers_are_drawn_as_well():
    tokens = torch.tensor([[3, 1, 2]])
    assert draw_sample(tokens, 0, read_denormalize(None, tokens)).rgb[0, :, 0].tolist() == [255, 0, 128]
    broken = torch.tensor([[[[float("nan"), float("inf"), -float("inf"), 0.5]]]])
    assert draw_sample(broken, 0, read_denormalize(None, broken)).rgb.shape == (1, 4, 3)


def test_thumbnails_keep_the_proportions_and_there_are_not_too_many():
    batch = torch.rand(MAX_THUMBNAILS + 9, 3, 40, 20)
    thumbs = draw_thumbnails(batch, 10, read_denormalize(None, batch))
    assert thumbs.shape == (MAX_THUMBNAILS, 10, 5, 3)
    assert draw_thumbnails(batch[:2, :, :4, :4], 10, read_denormalize(None, batch)).shape == (2, 4, 4, 3)
