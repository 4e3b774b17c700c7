"""Recorded activations against plain forward hooks that copy what they see: the same bits, for every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.engine.trace import Trace
from nnviz_widget.errors import InputError
from tests import models
from tests.models import image, rows, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _attention_part_by_part() -> Iterator[None]:
    """Take the way through attention that hooks force: the fused one sums in another order."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def hooked(model: nn.Module, *args: Any) -> tuple[dict[str, Tensor], Any]:
    """Return a copy of the first tensor that each call of each module gave, by the id of its node."""
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            call = calls.get(name, 0)
            calls[name] = call + 1
            tensors = tensors_of(output)
            if tensors:
                found[f"{name}@{call}" if call else name] = tensors[0][1].clone()

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        output = model(*args)
    for handle in handles:
        handle.remove()
    return found, output


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "resnet18, one ReLU in place and used twice": (lambda: vision("resnet18"), (image(2, 96),)),
    "vgg11, convolutions that are overwritten": (lambda: vision("vgg11"), (image(1, 64),)),
    "mobilenet_v3_small": (lambda: vision("mobilenet_v3_small"), (image(2, 64),)),
    "densenet121": (lambda: vision("densenet121"), (image(1, 64),)),
    "vit_b_16": (lambda: vision("vit_b_16"), (image(1, 224),)),
    "swin_t": (lambda: vision("swin_t"), (image(1, 64),)),
    "residual": (models.ResidualNet, (image(2),)),
    "views": (models.ViewWrite, (image(1, 6),)),
    "lstm": (models.TinyLstm, (torch.randint(0, 20, (2, 7)),)),
    "packed lstm": (
        lambda: models.TinyLstm(packed=True),
        (torch.randint(0, 20, (2, 7)), torch.tensor([5, 7])),
    ),
    "gru cell": (models.Unrolled, (torch.randn(2, 3, 3),)),
    "dict": (lambda: models.Outputs(lambda a, b: {"a": a, "b": b}), (rows(),)),
    "numpy": (models.NumpyRoundTrip, (rows(),)),
    "identities": (models.Identities, (image(1, 4),)),
    "transformer": (models.TinyVit, (image(2, 16),)),
    "shared": (models.Mlp, (rows(2, 6),)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_call_of_every_module_gives_the_bits_that_a_hook_sees(case: str) -> None:
    make, args = CASES[case]
    model = seeded(make)
    expected, output = hooked(model, *args)
    trace = Trace(record(model, args))
    for name, value in expected.items():
        if name not in trace.graph and name not in trace.refs:
            assert name.endswith("out_proj")  # a part inside a layer of torch's own
            continue
        assert torch.equal(trace.activation(name), value), name
    for (_, mine), (_, plain) in zip(tensors_of(trace.output), tensors_of(output), strict=True):
        assert torch.equal(mine, plain)


class Overwriting(nn.Module):
    """Overwrites nearly everything that it computes, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU6(inplace=True)
        self.drop = nn.Dropout(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.conv(x)))
        for factor in (2.0, -1.0, 0.5):
            y = self.drop(self.act(y.mul_(factor).add_(self.conv(x))))
        y[:, 1:3] = y[:, :1]
        y.transpose(1, 2).clamp_(max=0.7)
        return y.neg_()


def test_what_is_overwritten_many_times_is_kept_each_time() -> None:
    model = seeded(Overwriting)
    expected, _ = hooked(model, image(2, 8))
    trace = Trace(record(model, (image(2, 8),)))
    assert len(expected) == 13
    for name, value in expected.items():
        assert torch.equal(trace.activation(name), value), name
    y = trace.activation("drop@2").clone()
    y[:, 1:3] = y[:, :1]
    assert torch.equal(trace.activation("/setitem"), y)
    y.clamp_(max=0.7)
    assert torch.equal(trace.activation("output"), -y)


def test_activations_stay_as_they_were_when_the_weights_move_on() -> None:
    model = seeded(models.ResidualNet)
    expected, _ = hooked(model, image(2))
    trace = Trace(record(model, (image(2),)))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    for name, value in expected.items():
        assert torch.equal(trace.activation(name), value), name


def test_reading_an_activation_twice_gives_the_same() -> None:
    trace = Trace(record(vision("resnet18"), (image(1, 64),)))
    for name in ("layer1.0.bn1", "layer1.0.bn2", "layer1.0/add", "layer1.0"):
        assert torch.equal(trace.activation(name), trace.activation(name))


def test_operations_give_what_they_would_by_hand() -> None:
    model = seeded(models.ResidualNet)
    trace = Trace(record(model, (image(2),)))
    bn2, x = trace.activation("blocks.0.bn2"), trace.activation("stem")
    assert torch.equal(trace.activation("blocks.0/add"), bn2 + x)
    assert torch.equal(trace.activation("blocks.0"), (bn2 + x).relu())
    assert torch.equal(trace.activation("/flatten"), trace.activation("pool").flatten(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers_are_kept_as_they_are(dtype: torch.dtype) -> None:
    model = seeded(models.ResidualNet).to(dtype)
    x = image(1).to(dtype)
    expected, _ = hooked(model, x)
    trace = Trace(record(model, (x,)))
    assert trace.activation("blocks.0").dtype == dtype
    assert all(torch.equal(trace.activation(name), value) for name, value in expected.items())


def test_a_model_in_channels_last_keeps_its_values() -> None:
    model = seeded(models.ResidualNet).to(memory_format=torch.channels_last)
    x = image(2).to(memory_format=torch.channels_last)
    expected, _ = hooked(model, x)
    trace = Trace(record(model, (x,)))
    assert all(torch.equal(trace.activation(name), value) for name, value in expected.items())


def test_nan_and_infinity_pass_through() -> None:
    x = image(1)
    x[0, 0, 0, 0], x[0, 1, 5, 5] = torch.nan, torch.inf
    model = seeded(models.ResidualNet)
    expected, _ = hooked(model, x)
    trace = Trace(record(model, (x,)))
    for name, value in expected.items():
        torch.testing.assert_close(trace.activation(name), value, rtol=0, atol=0, equal_nan=True)


def test_a_decision_has_no_activation() -> None:
    trace = Trace(record(seeded(models.Branching), (rows(),)))
    with pytest.raises(InputError, match="no tensor"):
        trace.activation("/decision")
