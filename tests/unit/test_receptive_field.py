"""The receptive field equals what is known by hand, and what gradients of random positive weights can reach.

The slow reference: give every weight a random positive value, every non-linearity a positive slope, pools an
average instead of a maximum, and the gradient of a unit is positive exactly where there is a path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tests.torchvision_stub  # noqa: F401
from nnviz_widget.engine.engine import Engine

if TYPE_CHECKING:
    from nnviz_widget.engine.receptive import ReceptiveField


def field(model: nn.Module, x: Tensor, layer: str, unit: Any, **options: Any) -> ReceptiveField:
    with Engine(model) as engine:
        return engine.receptive_field(engine.trace(x), layer, unit, **options)


def rectangle(shape: tuple[int, int], y: range, x: range) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for row in y:
        for column in x:
            if 0 <= row < shape[0] and 0 <= column < shape[1]:
                mask[row, column] = True
    return mask


def check(found: ReceptiveField, expected: Tensor) -> None:
    assert found.exact
    assert torch.equal(found.mask, expected)


IMAGE = torch.zeros(1, 3, 16, 16)  # the values play no part


def test_two_3x3_convolutions_see_5x5() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    found = field(model, IMAGE, "2", (1, 6, 7))
    check(found, rectangle((16, 16), range(6, 11), range(7, 12)))
    assert found.box == (6, 7, 11, 12)


def test_dilation_leaves_holes() -> None:
    found = field(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=3)), IMAGE, "0", (0, 2, 4))
    check(found, rectangle((16, 16), range(2, 9, 3), range(4, 11, 3)))
    assert found.box == (2, 4, 9, 11)
    assert int(found.mask.sum()) == 9


def test_stride_and_padding_at_the_border() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2, padding=3))  # 8x8 out: position o sees 2o-3 .. 2o+3
    check(field(model, IMAGE, "0", (0, 0, 7)), rectangle((16, 16), range(4), range(11, 16)))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_and_uneven_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, (2, 5), padding="same"))  # even kernels look one further down
    check(field(model, IMAGE, "0", (0, 4, 4)), rectangle((16, 16), range(4, 6), range(2, 7)))


def test_circular_padding_wraps_around() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[[15, 15, 15, 0, 0, 0, 1, 1, 1], [15, 0, 1] * 3] = True
    check(field(model, IMAGE, "0", (0, 0, 0)), expected)


class Branches(nn.Module):
    """Only one branch feeds each half of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(3, 2, 1)
        self.large = nn.Conv2d(3, 2, 5, padding=2)
        self.after = nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.cat([self.small(x), self.large(x)], 1))


@pytest.mark.parametrize(("channel", "reach"), [(0, 1), (1, 1), (2, 3), (3, 3)])
def test_only_the_branch_that_feeds_the_channel_counts(channel: int, reach: int) -> None:
    found = field(Branches(), IMAGE, "after", (channel, 8, 8))
    check(found, rectangle((16, 16), range(8 - reach, 9 + reach), range(8 - reach, 9 + reach)))


def test_a_depthwise_convolution_keeps_its_channel() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(2, 2, 3, padding=1, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.depthwise(torch.cat([x[:, :1], x[:, 1:2].roll(4, 3)], 1))

    check(field(Split(), IMAGE, "depthwise", (0, 8, 8)), rectangle((16, 16), range(7, 10), range(7, 10)))
    check(field(Split(), IMAGE, "depthwise", (1, 8, 8)), rectangle((16, 16), range(7, 10), range(3, 6)))


def test_a_residual_sees_the_union() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.far = nn.Conv2d(3, 3, 3, dilation=4, padding=4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.far(x).relu_()

    expected = rectangle((16, 16), range(4, 13, 4), range(4, 13, 4))
    check(field(Residual(), IMAGE, "", (0, 8, 8)), expected)
    assert expected[8, 8]


def test_all_positions_of_a_max_pool_count_not_only_the_largest() -> None:
    found = field(nn.Sequential(nn.MaxPool2d(3, 2, 1)), torch.randn(1, 3, 16, 16), "0", (0, 3, 0))
    check(found, rectangle((16, 16), range(5, 8), range(2)))


def test_pools_that_hang_over_the_edge_and_adaptive_ones() -> None:
    x = torch.zeros(1, 3, 10, 10)
    check(
        field(nn.Sequential(nn.AvgPool2d(4, 4, ceil_mode=True)), x, "0", (0, 2, 1)),
        rectangle((10, 10), range(8, 10), range(4, 8)),
    )
    check(  # windows of 10 into 4: 0-3, 2-5, 5-8, 7-10
        field(nn.Sequential(nn.AdaptiveAvgPool2d(4)), x, "0", (0, 1, 3)),
        rectangle((10, 10), range(2, 5), range(7, 10)),
    )
    check(
        field(nn.Sequential(nn.AdaptiveMaxPool2d(1)), x, "0", (0, 0, 0)),
        torch.ones(10, 10, dtype=torch.bool),
    )


def test_a_transposed_convolution_sees_the_inputs_that_are_spread_over_it() -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)
    )  # out o <- in i: o = 2i - 1 + k, k < 4
    found = field(model, torch.zeros(1, 3, 8, 8), "0", (0, 5, 0))  # 5: i = 3 (k=0), 2 (k=2); 0: i = 0 (k=1)
    check(found, rectangle((8, 8), range(2, 4), range(1)))


def test_values_play_no_part_not_even_weights_of_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    nn.init.zeros_(model[0].weight)
    check(field(model, IMAGE, "1", (0, 2, 2)), rectangle((16, 16), range(2, 5), range(2, 5)))


def test_each_sample_sees_itself_alone_in_eval_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    x = torch.zeros(2, 3, 8, 8)
    with Engine(model) as engine:
        trace = engine.trace(x)
        check(
            engine.receptive_field(trace, "1", (0, 2, 2), sample=1),
            rectangle((8, 8), range(2, 5), range(2, 5)),
        )


def test_batch_statistics_see_every_position_of_every_sample() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    check(field(model, torch.randn(2, 3, 8, 8), "1", (0, 2, 2)), torch.ones(8, 8, dtype=torch.bool))


def test_a_unit_that_depends_on_no_input_sees_nothing() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, torch.ones_like(x)], 1)

    found = field(Constant(), IMAGE, "", (4, 3, 3))
    check(found, torch.zeros(16, 16, dtype=torch.bool))
    assert found.box == (0, 0, 0, 0)


class TinyViT(nn.Module):
    def __init__(self, attention: str) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.attention = attention
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.mlp(x)
        if self.attention == "encoder":
            return self.first(x)
        if self.attention == "causal":
            return F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return (x @ x.mT).softmax(-1) @ x


@pytest.mark.parametrize("attention", ["encoder", "product"])
def test_a_token_sees_its_patch_before_attention_and_the_whole_image_after(attention: str) -> None:
    model = TinyViT(attention)
    check(field(model, IMAGE, "patch", (0, 1, 2)), rectangle((16, 16), range(4, 8), range(8, 12)))
    check(field(model, IMAGE, "mlp", (7, 0)), rectangle((16, 16), range(4, 8), range(8, 12)))  # 1 + 1 * 4 + 2
    check(field(model, IMAGE, "mlp", (0, 0)), torch.zeros(16, 16, dtype=torch.bool))  # the class token
    check(field(model, IMAGE, "", (3, 1)), torch.ones(16, 16, dtype=torch.bool))


def test_causal_attention_sees_only_the_tokens_before() -> None:
    found = field(TinyViT("causal"), IMAGE, "", (5, 1))  # token 0 is the class token: patches 0 to 4
    expected = rectangle((16, 16), range(4), range(16)) | rectangle((16, 16), range(4, 8), range(4))
    check(found, expected)


def test_a_recurrent_layer_sees_the_past_and_with_both_directions_everything() -> None:
    x = torch.zeros(2, 6, 3)
    expected = torch.zeros(6, 3, dtype=torch.bool)
    expected[:4] = True
    check(field(nn.Sequential(nn.LSTM(3, 4, batch_first=True)), x, "0", (3, 1)), expected)
    both = nn.Sequential(nn.GRU(3, 4, batch_first=True, bidirectional=True))
    check(field(both, x, "0", (3, 1)), torch.ones(6, 3, dtype=torch.bool))


def test_inputs_that_are_no_images_have_a_mask_of_one_sample_and_no_box() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(24, 5))
    x = torch.zeros(1, 2, 8)
    expected = torch.zeros(2, 8, dtype=torch.bool)
    expected[:, 3:6] = True
    found = field(model, x, "0", (1, 3))
    check(found, expected)
    assert found.box == ()
    check(field(model, x, "output", 2), torch.ones(2, 8, dtype=torch.bool))


@pytest.mark.parametrize("what", ["fft", "sort by data", "numpy", "script", "all script"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_not_known_reaches_everything_and_says_so(what: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if what == "script":
                self.inner = torch.jit.script(nn.Conv2d(3, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            if what == "fft":
                return torch.fft.fft(x).real
            if what == "numpy":
                return torch.from_numpy(x.numpy() * 2) + 1
            if what == "script":
                return self.inner(x)
            return x[:, :, x.sum((0, 1, 3)).argsort()]

    model = torch.jit.script(nn.Conv2d(3, 3, 1)) if what == "all script" else Odd()
    found = field(model, torch.randn(1, 3, 8, 8), "output", (0, 2, 2))
    assert not found.exact
    assert found.mask.all()


class Moves(nn.Module):
    """Everything that moves data about, and writes in place through views."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (1, 2, 0, 1), mode="replicate").flip(3)[:, :, ::2, 1:-3]
        a, b = y.chunk(2, 3)
        y = torch.stack([a, b], 2).transpose(1, 2).reshape(x.shape[0], 2, -1, a.shape[3])
        y = F.interpolate(y, scale_factor=2, mode="bilinear")
        y = F.pixel_unshuffle(y, 2)
        z = y.new_zeros(y.shape)
        z[:, 1:3] = y[:, :2]
        z[:, 0].add_(y[:, 3]).mul_(2)
        z[:, 5, 1].copy_(y[:, 0, 0])
        top = z[:, :2]
        top[:, :, 0] = y[:, 6:8, 1]
        z = z.masked_fill(torch.eye(z.shape[2], z.shape[3]).bool(), 0.0)
        return torch.where(torch.arange(z.shape[3]) > 0, z, y.roll(1, 2)) + z.mean((1, 3), keepdim=True) * 0.5


class Positive(nn.Module):
    """Convolutions, norms and products, all of them smooth and with a positive slope everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=1)
        self.depthwise = nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2, output_padding=1)
        self.pool = nn.AvgPool2d(3, 2)
        self.linear = nn.Linear(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.stem(x).sigmoid())
        y = self.pool(self.up(y).exp())
        return self.linear(y) * torch.einsum("nchw,nchv->nchw", y, y)[..., :6]


def reference(model: nn.Module, x: Tensor, index: tuple[int, ...]) -> Tensor:
    """Where the gradient of the unit is not zero, with positive weights and in float64: a slow definition."""
    x = x.double().requires_grad_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.1, 1)
    gradient = torch.autograd.grad(model.double()(x * 1)[index], x)[0]
    model.float()
    return (gradient[index[0]] != 0).any(0)


@pytest.mark.parametrize("make", [Moves, Positive])
def test_the_field_is_where_gradients_can_reach(make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    x = torch.rand(2, 3, 11, 13) + 0.5
    shape = model(x).shape
    with Engine(model) as engine:
        trace = engine.trace(x)
        for _ in range(40):
            index = tuple(int(torch.randint(size, ())) for size in shape)
            found = engine.receptive_field(trace, "", index[1:], sample=index[0])
            assert found.exact
            assert torch.equal(found.mask, reference(model, x, index)), index


def test_gradients_of_a_real_network_stay_within_the_field() -> None:
    import torchvision

    torch.manual_seed(0)
    x = torch.randn(1, 3, 96, 96)
    for name, layer in [
        ("resnet18", "layer2"),
        ("mobilenet_v3_small", "features.2"),
        ("densenet121", "features.pool0"),
    ]:
        with Engine(getattr(torchvision.models, name)()) as engine:
            trace = engine.trace(x)
            shape = trace.activation(layer).shape
            for _ in range(5):
                unit = tuple(int(torch.randint(size, ())) for size in shape[1:])
                found = engine.receptive_field(trace, layer, unit)
                gradient = engine.unit_saliency(trace, layer, unit)
                assert isinstance(gradient, Tensor)
                seen = (gradient[0] != 0).any(0)
                assert found.exact
                assert not (seen & ~found.mask).any()
