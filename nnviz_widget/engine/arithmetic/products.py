"""Linear layers, products of matrices, and tables that are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic, Operand
from nnviz_widget.engine.arithmetic.values import NotApartError
from nnviz_widget.engine.arithmetic.windows import summed
from nnviz_widget.engine.recording import Ref

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []


@explains("linear")
def linear(case: Case) -> Arithmetic:
    """Multiply every feature by its weight."""
    given = case.bind("input weight bias")
    x, weight, bias = case.tensor(given["input"]), case.tensor(given["weight"]), case.optional(given["bias"])
    row = weight[case.index[-1]] if weight.dim() == 2 else weight
    places = case.index[:-1] if weight.dim() == 2 else case.index
    at = None if bias is None else bias if bias.dim() == 0 else bias[case.index[-1]]
    return summed(
        x[places],
        row,
        at,
        formula="Σ input · weight" + " + bias" * (at is not None),
        source=case.node(given["input"]),
    )


@explains("matmul mm bmm mv dot addmm baddbmm")
def product(case: Case) -> Arithmetic:
    """Multiply a row of the first by a column of the second."""
    added = case.op.name in {"addmm", "baddbmm"}
    names = "input first second beta alpha" if added else "first second"
    given = case.bind(names, beta=1, alpha=1)
    if "input" in given and not added:  # called as a method by name
        given["first"] = given["input"]
    parts = [
        given["first"],
        given["second"] if given["second"] is not None else given.get("other", given.get("mat2")),
    ]
    if getattr(case.op.func, "__name__", "") == "__rmatmul__":
        parts.reverse()
    a, b = (case.tensor(part) for part in parts)
    index = case.index
    if a.dim() > 1:
        behind = 2 if b.dim() > 1 else 1
        lead = index[:-behind]
        a_row = a.expand(*_lead(a, b), *a.shape[-2:])[index[: len(index) - behind + 1]]
    else:
        lead, a_row = index[:-1], a
    column = b.expand(*_lead(a, b), *b.shape[-2:])[lead][:, index[-1]] if b.dim() > 1 else b
    if not added:
        return summed(a_row, column, None, formula="Σ row · column", source=case.node(parts[0]))
    x = case.tensor(given["input"]).expand(case.shape)[index]
    return summed(
        a_row,
        column * given["alpha"],
        x * given["beta"],
        formula="Σ row · column + input",
        source=case.node(parts[0]),
    )


def _lead(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """Return the batch axes of a product."""
    return tuple((torch.empty(a.shape[:-2], device="meta") + torch.empty(b.shape[:-2], device="meta")).shape)


@explains("embedding")
def embedding(case: Case) -> Arithmetic:
    """Look a row up in the table."""
    given = case.bind("input weight")
    parts = (given["input"], given["weight"])
    tensors = [case.values(part) for part in parts if isinstance(part, Ref)]
    if len(tensors) != 2:
        raise NotApartError("its table is no tensor.")
    if tensors[0].is_floating_point():  # torch.embedding(weight, indices)
        parts, tensors = (parts[1], parts[0]), [tensors[1], tensors[0]]
    tokens, table = tensors
    row = int(tokens[case.index[:-1]])
    vector = table[row].double().cpu()
    return Arithmetic(
        "lookup",
        f"row {row} of the table, entry {case.index[-1]}",
        float(vector[case.index[-1]]),
        numbers={"row": float(row), "entry": float(case.index[-1])},
        arrays={"row": vector},
        operands=[Operand("index", float(row), case.node(parts[0]), case.index[:-1])],
        source=case.node(parts[0]),
    )
