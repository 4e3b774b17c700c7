"""Layers that are no stacks of images: a click on their picture reaches the right unit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nnviz_widget as nnviz


@pytest.mark.parametrize(
    ("layer", "size", "pixel", "unit"),
    [
        (nn.Conv1d(2, 4, 5, padding=2), (40,), (0, 5), (1, 5)),
        (nn.Conv3d(2, 4, 3, padding=1), (6, 8, 8), (2, 5), (1, 3, 2, 5)),
    ],
)
def test_a_pixel_of_a_series_or_of_the_middle_of_a_volume_has_its_own_gradient(layer, size, pixel, unit):
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    inputs = torch.randn(2, 2, *size)
    model(inputs)
    w = nnviz.explore(model, inputs)
    try:
        w.select("0", channel=unit[0], pixel=pixel)
        one = inputs[:1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(layer(one)[(0, *unit)], one)
        torch.testing.assert_close(torch.as_tensor(w.saliency), expected[0])
    finally:
        w.close()
