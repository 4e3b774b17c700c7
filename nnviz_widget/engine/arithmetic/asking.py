"""From a layer and a unit to the operation that made the number, and to the family that takes it apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.arithmetic import (  # noqa: F401  each enters what it knows
    attention,
    convolution,
    normalising,
    pooling,
    products,
    recurrent,
)
from nnviz_widget.engine.arithmetic.elementwise import FORMULAS, curve_of, formula_of
from nnviz_widget.engine.arithmetic.moves import MOVES, came_from
from nnviz_widget.engine.arithmetic.registry import KNOWN
from nnviz_widget.engine.arithmetic.result import Arithmetic, Curve
from nnviz_widget.engine.arithmetic.values import Case, NotApartError, Values, changed_at, is_inside
from nnviz_widget.engine.sites import HEADS
from nnviz_widget.engine.units import locate
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nnviz_widget.engine.recording import Op, Ref
    from nnviz_widget.engine.trace import Trace

__all__ = ["activation_curve", "arithmetic"]

_MOVES = frozenset(MOVES.split())
_SATURATED = 0.05
_POINTS = 241
_BARS = 48
_EQUAL = 1e-5


def arithmetic(
    trace: Trace, name: str, unit: int | tuple[int, ...], sample: int, weight: Callable[[str], Tensor]
) -> Arithmetic:
    """Take one number apart; `Engine.arithmetic` says what that is.

    Parameters
    ----------
    trace : Trace
        Of a run.
    name : str
        Id of a node or group.
    unit : int or tuple of int
        Index in one sample's activation.
    sample : int
        Which sample of the batch.
    weight : callable
        Returns a parameter or buffer by name.
    """
    ref = _made(trace, name)
    whole = trace.activation(name)
    index = locate(tuple(whole.shape), unit, sample, name)
    values = Values(trace, weight)
    op = trace.ops[ref.op]
    try:
        op, port, place = _inside(values, ref, index)
        values.reader = op.node
        found = _apart(Case(values, op, port, place))
    except NotApartError as reason:
        found = Arithmetic("unknown", note=f"This {op.name} is not taken apart: {reason}")
    found.node, found.op, found.at, found.sample = name, op.name, op.node, sample
    found.unit = (unit,) if isinstance(unit, int) else tuple(unit)
    found.actual = float(whole[index])
    reach = whole.detach()[torch.isfinite(whole)].abs() if whole.is_floating_point() else whole.abs()
    terms = found.arrays.get("products")
    found.scale = max(
        float(reach.max()) if reach.numel() else 0.0,
        float(terms.abs().max()) if terms is not None and terms.numel() else 0.0,
    )
    found.changed_by = _changed_by(trace, name, ref, index)
    return _with_heads(trace, op, found)


def activation_curve(trace: Trace, name: str, weight: Callable[[str], Tensor]) -> Curve:
    """Draw an activation function over its real inputs; `Engine.activation_curve` says what that is."""
    ref = _made(trace, name)
    op = trace.ops[ref.op]
    shape = op.outputs[ref.port].shape
    if op.name not in FORMULAS or op.kind != "call":
        known = "relu, gelu, silu, sigmoid, tanh, …"
        raise InputError(
            f"{name!r} is no activation function but {op.name}.", hint=f"There are curves of {known}"
        )
    case = Case(Values(trace, weight), op, ref.port, (0,) * len(shape))
    try:
        part = case.bind("input")["input"]
        x = case.tensor(part).reshape(-1).cpu()
        function = curve_of(case)
    except NotApartError as reason:
        raise InputError(f"The curve of {name!r} cannot be drawn: {reason}") from reason
    x = x[torch.isfinite(x)] if x.is_floating_point() else x.double()
    if not x.numel():
        raise InputError(f"{name!r} got no finite number.")
    low, high = float(x.min()), float(x.max())
    margin = max(0.08 * (high - low), 0.5)
    points = torch.linspace(min(low, -1.0) - margin, max(high, 1.0) + margin, _POINTS, dtype=torch.float64)
    y, slope = _with_slope(function, points)
    at_inputs = _with_slope(function, x)[1]
    edges = torch.linspace(float(points[0]), float(points[-1]), _BARS + 1, dtype=torch.float64)
    counts = torch.histogram(x, edges).hist
    note = ""
    if op.name == "prelu":
        note = "Every channel has a curve of its own; this is the first."
    saturated = float((at_inputs.abs() < _SATURATED).double().mean())
    return Curve(name, op.name, formula_of(case), points, y, slope, counts, edges, saturated, x.numel(), note)


def _changed_by(trace: Trace, name: str, ref: Ref, index: tuple[int, ...]) -> list[str]:
    """Return the interventions that changed this very number, in the order in which they did."""
    sites = [site for site in changed_at(trace, ref) if site == name or not is_inside(name, site)]
    shape = trace.ops[ref.op].outputs[ref.port].shape
    told = []
    for site in sites:
        for one in trace.interventions:
            touched = torch.zeros(shape, dtype=torch.bool)
            if one.site == site:
                touched[one.place.index(shape)] = True
            if touched[index]:
                told.append(str(one))
    return told


def _with_heads(trace: Trace, op: Op, found: Arithmetic) -> Arithmetic:
    """Say so where heads were changed inside an attention: the values that it then mixed are not kept."""
    heads = [one for one in trace.interventions if one.path.endswith(HEADS)]
    calls = [str(one) for one in heads if _mixes(op.node, one.path)]
    if not calls or not found.known or found.error <= _EQUAL:
        return found
    found.note = f"Heads are changed inside of this layer, by {', '.join(calls)}: no sum is shown."
    found.kind, found.formula, found.result = "unknown", "", float("nan")
    found.numbers, found.arrays, found.places, found.operands = {}, {}, None, []
    return found


def _mixes(node: str, path: str) -> bool:
    """Whether a node may mix what heads gave: it is the attention, holds it, or stands beside it."""
    own, site = node.partition("@")[0], path.removesuffix(HEADS)
    return is_inside(site, own) or is_inside(own, site.rpartition(".")[0] or site)


def _made(trace: Trace, name: str) -> Ref:
    ref = trace.refs.get(name)
    if ref is None:
        raise InputError(f"{name!r} gave no tensor.", hint="Choose another layer.")
    return ref


def _inside(values: Values, ref: Ref, index: tuple[int, ...]) -> tuple[Op, int, tuple[int, ...]]:
    """Go back over what only moves the numbers of a layer that does more (the transposes of attention)."""
    ops = values.trace.ops
    op, port = ops[ref.op], ref.port
    while op.kind == "call" and op.name in _MOVES and op.args:
        part, place = came_from(values, op, port, index)
        if part is None or ops[part.op].node != op.node or ops[part.op].kind != "call":
            break
        op, port, index = ops[part.op], part.port, place
    return op, port, index


def _apart(case: Case) -> Arithmetic:
    op = case.op
    if op.kind in {"input", "parameter", "buffer", "constant"}:
        return Arithmetic(
            "source", f"{op.kind} {op.name}".strip(), float(case.values.trace.activation(op.node)[case.index])
        )
    if op.kind == "identity":
        operand = case.operand("x", op.inputs[0], case.index)
        return Arithmetic(
            "copy", "passed on as it is", operand.value, operands=[operand], source=operand.node
        )
    explain = KNOWN.get(op.name)
    if explain is None or op.kind != "call":
        raise NotApartError(f"there is no explanation of {op.name} yet.")
    try:
        return explain(case)
    except (TypeError, IndexError, KeyError, RuntimeError, ValueError) as error:
        # A way of calling it that is not known here: nothing is said rather than something wrong.
        raise NotApartError(f"it is called in a way that is not known ({type(error).__name__}).") from error


def _with_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        if not y.requires_grad:  # steps: rounding, signs
            return y.detach(), torch.zeros_like(x.detach())
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope
