"""The table of a pass against torch's own counts: parameters, FLOPs, element sizes; and how it is written."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nnviz_widget import Engine
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.summary import Summary
from nnviz_widget.engine.trace import Trace
from nnviz_widget.errors import InputError
from tests.models import Mlp, ResidualNet, TinyVit, Unused, image, rows, seeded


class Tied(nn.Module):
    """An embedding whose weights are also the head, a frozen layer, and one block called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.frozen(self.block(self.block(self.embed(tokens)))))


class Half(nn.Module):
    """A layer in half precision inside a model in single precision, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(4, 4)
        self.small = nn.Linear(4, 4).to(torch.bfloat16)
        self.register_buffer("scale", torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.small(self.wide(x).to(torch.bfloat16))


TOKENS = torch.tensor([[1, 2, 3, 4, 5]])
CASES = [
    pytest.param(Mlp, rows(2, 6), id="called three times"),
    pytest.param(Tied, TOKENS, id="tied"),
    pytest.param(ResidualNet, image(2), id="residual"),
    pytest.param(TinyVit, image(1, 16), id="transformer"),
    pytest.param(Half, rows(2, 4), id="two types"),
]


def leaf_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that all leaf modules gave, by hooks on the plain model; what is handed through gives nothing."""
    sizes = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output is not inputs[0] or not isinstance(module, (nn.Identity, nn.Dropout)):
            sizes.append(output.numel() * output.element_size())

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    model(x)
    for handle in handles:
        handle.remove()
    return sum(sizes)


@pytest.mark.parametrize(("make", "x"), CASES)
def test_totals_are_those_of_the_plain_model(make, x: Tensor) -> None:
    model = seeded(make)
    summary = Trace(record(model, (x,))).summary()
    parameters = list(model.parameters())
    assert summary.params == sum(p.numel() for p in parameters)
    assert summary.trainable_params == sum(p.numel() for p in parameters if p.requires_grad)
    assert summary.weight_bytes == sum(p.numel() * p.element_size() for p in parameters)
    assert summary.buffer_bytes == sum(b.numel() * b.element_size() for b in model.buffers())
    assert summary.input_bytes == x.numel() * x.element_size()
    # With gradients and plain attention: the fused kernels are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x)
    assert summary.flops == counter.get_total_flops()


@pytest.mark.parametrize("make", [Mlp, Tied])
def test_memory_is_what_every_leaf_gave(make) -> None:
    """In models that compute in leaf modules only."""
    model, x = seeded(make), TOKENS if make is Tied else rows(2, 6)
    assert Trace(record(model, (x,))).summary().activation_bytes == leaf_bytes(model, x)


@pytest.mark.parametrize("depth", [0, 1, 2, None])
@pytest.mark.parametrize(("make", "x"), CASES)
def test_the_deepest_rows_add_up_at_every_depth(make, x: Tensor, depth: int | None) -> None:
    summary = Trace(record(seeded(make), (x,))).summary(depth, operations=True)
    following = [*summary.rows[1:], summary.rows[0]]
    deepest = [row for row, after in zip(summary.rows, following, strict=True) if after.depth <= row.depth]
    assert sum(row.params for row in deepest) == summary.params
    assert sum(row.flops for row in deepest) == summary.flops
    assert sum(row.bytes for row in deepest) == summary.activation_bytes
    assert max(row.depth for row in summary.rows) <= (99 if depth is None else depth)


def test_shared_weights_count_once_and_say_with_whom() -> None:
    summary = Trace(record(seeded(Tied), (TOKENS,))).summary()
    found = {row.id: row for row in summary.rows}
    assert [row.name for row in summary.rows] == [
        *("Tied", "embed", "block", "0", "1", "block@1", "0@1", "1@1", "frozen", "head"),
    ]
    assert (found["embed"].params, found["embed"].shared) == (66, "")
    assert (found["head"].params, found["head"].shared) == (0, "embed")
    assert (found["block"].params, found["block"].shared) == (42, "")
    assert (found["block@1"].params, found["block@1"].shared) == (0, "block.0")
    assert found[""].shared == ""
    assert found["block@1"].flops == found["block"].flops == 5 * 2 * 36
    assert "shared with embed" in str(summary)
    assert (summary.params, summary.trainable_params) == (150, 108)


def test_rows_are_plain_data() -> None:
    summary = Trace(record(seeded(ResidualNet), (image(2),))).summary(1)
    stem = summary.rows[1]
    assert asdict(stem) == {
        "id": "stem",
        "depth": 1,
        "name": "stem",
        "type": "Conv2d",
        "output_shape": (2, 4, 16, 16),
        "params": 112,
        "shared": "",
        "flops": 2 * 2 * 4 * 16 * 16 * 27,
        "bytes": 2 * 4 * 16 * 16 * 4,
    }
    assert summary.rows[0].output_shape == (2, 5)


def test_weights_that_did_not_run_are_told() -> None:
    model = seeded(Unused)
    model.spare = nn.Linear(3, 3)
    summary = Trace(record(model, (rows(2, 4),))).summary()
    assert summary.params == sum(p.numel() for p in model.parameters())
    assert summary.unused_params == 12
    assert f"did not use: {summary.unused_params:,}" in str(summary)


def test_an_engine_that_computes_with_copies_knows_what_is_trained() -> None:
    model = seeded(Tied)
    with Engine(model, device="cpu") as engine:
        plain = engine.trace(TOKENS).summary()
    assert (plain.params, plain.trainable_params) == (150, 108)
    copies = Trace(record(model, (TOKENS,)), frozen=frozenset({"frozen.weight"})).summary()
    assert copies.trainable_params == 150 - 36


def test_the_text_is_a_table_with_straight_columns() -> None:
    text = str(Trace(record(seeded(Mlp), (rows(2, 6),))).summary())
    assert text == repr(Trace(record(seeded(Mlp), (rows(2, 6),))).summary())
    lines = text.splitlines()
    end = lines[0].index("FLOPs") + len("FLOPs")
    assert [line[:end].split()[-1] for line in lines[2:6]] == ["800", "192", "2×8", "256"]
    assert all(line.startswith("  ") for line in lines[3:10])
    assert "Parameters: 155 (155 trainable, 0 not trainable)" in lines


def test_html_escapes_names_and_takes_no_colour() -> None:
    Strange = type("<script>alert('1')</script>&", (nn.Linear,), {})
    model = nn.Sequential()
    model.add_module("<b>", Strange(4, 3))
    html = Trace(record(model, (rows(2, 4),))).summary()._repr_html_()
    assert "<script" not in html
    assert "<b>&" not in html
    assert "color" not in html
    assert "background" not in html
    page = ET.fromstring(html.replace("<br>", "<br/>"))
    cells = ["".join(cell.itertext()) for cell in page.iter("td")]
    assert cells[6:8] == ["<b>", "<script>alert('1')</script>&"]


@pytest.mark.parametrize("depth", [-1, 1.5, "2", True])
def test_a_depth_that_is_none_is_refused(depth) -> None:
    with pytest.raises(InputError, match="whole number from 0"):
        Trace(record(seeded(Mlp), (rows(2, 6),))).summary(depth)


def test_a_summary_is_a_value() -> None:
    trace = Trace(record(seeded(Mlp), (rows(2, 6),)))
    assert isinstance(trace.summary(), Summary)
    assert trace.summary() == trace.summary()
