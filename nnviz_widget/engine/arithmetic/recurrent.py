"""Recurrent layers: what the gates of one cell do at one step of one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic
from nnviz_widget.engine.arithmetic.values import NotApartError

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []

_GATES = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "h", "rnn_relu": "h"}
_FORMULAS = {
    "lstm": "o · tanh(c), c = f · c before + i · g",
    "gru": "(1 − z) · n + z · h before, n = tanh(input part + r · hidden part)",
    "rnn_tanh": "tanh(input part + hidden part)",
    "rnn_relu": "max(0, input part + hidden part)",
}


class _Weights(NamedTuple):
    """Of one layer in one direction; biases are zeros where it has none."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


class _Step(NamedTuple):
    """One step of a cell: what came in, and what it made of it."""

    x: Tensor
    h: Tensor
    c: Tensor
    h_next: Tensor
    c_next: Tensor


@explains("lstm gru rnn_tanh rnn_relu")
def layer(case: Case) -> Arithmetic:
    """Go through the sequence up to the step that made the number."""
    kind, args = case.op.name, list(case.op.args)
    packed = isinstance(args[2], tuple) or (isinstance(args[1], tuple) is False and isinstance(args[3], list))
    if case.op.kwargs or len(args) < 8:
        raise NotApartError("it is called in an unusual way.")
    if packed:
        data, sizes, state, params, biased, layers, _, training, both = args[:9]
        sequence, number, place = _packed(case, data, sizes)
    else:
        data, state, params, biased, layers, _, training, both, first = args[:9]
        sequence, number, place = _plain(case, data, batch_first=first)
    if training:
        raise NotApartError("it may drop values at random.")
    states = [case.tensor(part).cpu() for part in (state if kind == "lstm" else (state,))]
    states = [part[:, number] if part.dim() == 3 else part for part in states]
    weights = _sorted(case, params, biased=biased, layers=layers, directions=2 if both else 1)
    if weights is None:
        raise NotApartError("it projects its state.")
    width = weights[0][0].hh.shape[1]
    wanted, way, unit = layers - 1, 0, 0
    if case.port == 0:
        step, unit = place
        way, unit = unit // width, unit % width
    else:
        wanted, way, unit = case.index[0] // len(weights[0]), case.index[0] % len(weights[0]), case.index[-1]
        step = 0 if way else len(sequence) - 1
    for number_of, ways in enumerate(weights):
        outs = []
        for direction, own in enumerate(ways):
            at = number_of * len(ways) + direction
            steps = _run(
                kind, sequence if not direction else sequence.flip(0), own, [part[at] for part in states]
            )
            steps = steps[::-1] if direction else steps
            if number_of == wanted and direction == way:
                note = f"Layer {wanted}, step {step}" + (", backwards." if way else ".")
                source = case.node(data) if not wanted else ""
                return _apart(case, steps[step], own, unit, note=note, source=source)
            outs.append(torch.stack([one.h_next for one in steps]))
        sequence = torch.cat(outs, -1)
    raise NotApartError("this step was not found.")


@explains("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def cell(case: Case) -> Arithmetic:
    """Take one step of a cell apart."""
    kind = case.op.name.removesuffix("_cell")
    x, state, *params = case.op.args
    state = list(state) if kind == "lstm" else [state]
    given = [case.tensor(part).cpu() for part in (x, *state)]
    if given[0].dim() == 2:
        given = [part[case.index[0]] for part in given]
    weights = _Weights(*_with_biases([case.tensor(part).cpu() for part in params if part is not None]))
    step = _run(kind, given[0][None], weights, given[1:])[0]
    return _apart(case, step, weights, case.index[-1], source=case.node(x))


def _plain(case: Case, data: Any, *, batch_first: bool) -> tuple[Tensor, int, tuple[int, int]]:
    """Return the sequence of one sample, its number in the batch, and step and feature."""
    x = case.tensor(data).cpu()
    if case.port:
        number = case.index[1] if len(case.index) == 3 else 0
        place = (0, 0)
    elif x.dim() == 2:
        number, place = 0, (case.index[0], case.index[1])
    else:
        number = case.index[0 if batch_first else 1]
        place = (case.index[1 if batch_first else 0], case.index[2])
    if x.dim() == 2:
        return x, number, place
    return (x[number] if batch_first else x[:, number]), number, place


def _packed(case: Case, data: Any, sizes: Any) -> tuple[Tensor, int, tuple[int, int]]:
    """Return the same of a packed sequence, whose rows are the steps of all samples, step by step."""
    x, counts = case.tensor(data).cpu(), case.values(sizes).tolist()
    begins = [sum(counts[:t]) for t in range(len(counts))]
    if case.port:
        number, place = case.index[1], (0, 0)
    else:
        step = max(t for t, begin in enumerate(begins) if begin <= case.index[0])
        number, place = case.index[0] - begins[step], (step, case.index[1])
    rows = [begin + number for begin, count in zip(begins, counts, strict=True) if count > number]
    return x[rows], number, place


def _sorted(
    case: Case, params: Any, *, biased: bool, layers: int, directions: int
) -> list[list[_Weights]] | None:
    """Return the weights by layer and direction; None where there are more of them than usual."""
    each = 4 if biased else 2
    if len(params) != each * layers * directions:
        return None
    tensors = [case.tensor(part).cpu() for part in params]
    groups = [_Weights(*_with_biases(tensors[i : i + each])) for i in range(0, len(tensors), each)]
    return [groups[i : i + directions] for i in range(0, len(groups), directions)]


def _with_biases(params: list[Tensor]) -> list[Tensor]:
    return params if len(params) == 4 else [*params, *[torch.zeros(len(params[0]), dtype=torch.float64)] * 2]


def _run(kind: str, sequence: Tensor, w: _Weights, state: list[Tensor]) -> list[_Step]:
    """Run one cell over a sequence ``[T, D]``."""
    h, c = state[0], state[-1]
    steps = []
    for x in sequence:
        left, right = w.ih @ x + w.b_ih, w.hh @ h + w.b_hh
        c_next = c
        if kind == "lstm":
            i, f, g, o = (left + right).chunk(4)
            c_next = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h_next = o.sigmoid() * c_next.tanh()
        elif kind == "gru":
            (r, z, n), (r_h, z_h, n_h) = left.chunk(3), right.chunk(3)
            update = (z + z_h).sigmoid()
            h_next = (1 - update) * (n + (r + r_h).sigmoid() * n_h).tanh() + update * h
        else:
            h_next = (left + right).tanh() if kind == "rnn_tanh" else (left + right).relu()
        steps.append(_Step(x, h, c, h_next, c_next))
        h, c = h_next, c_next
    return steps


def _apart(case: Case, step: _Step, w: _Weights, unit: int, **more: Any) -> Arithmetic:
    """Return one unit of one step."""
    kind = case.op.name.removesuffix("_cell")
    gates, width = _GATES[kind], len(step.h)
    rows = [gate * width + unit for gate in range(len(gates))]
    left, right = (w.ih @ step.x + w.b_ih)[rows], (w.hh @ step.h + w.b_hh)[rows]
    sums = left + right
    h, c = float(step.h[unit]), float(step.c[unit])
    numbers: dict[str, float] = {}
    if kind == "lstm":
        numbers |= {"c before": c}
        numbers |= {
            name: float(value.tanh() if name == "g" else value.sigmoid())
            for name, value in zip(gates, sums, strict=True)
        }
        numbers["c"] = numbers["f"] * c + numbers["i"] * numbers["g"]
        result = numbers["c"] if case.port == 2 or (case.op.name == "lstm_cell" and case.port == 1) else None
        if result is None:
            numbers["tanh(c)"] = float(torch.tanh(torch.tensor(numbers["c"], dtype=torch.float64)))
            result = numbers["o"] * numbers["tanh(c)"]
    elif kind == "gru":
        r, z = float(sums[0].sigmoid()), float(sums[1].sigmoid())
        n = float((left[2] + r * right[2]).tanh())
        numbers |= {
            "h before": h,
            "r": r,
            "z": z,
            "input part": float(left[2]),
            "hidden part": float(right[2]),
            "n": n,
        }
        result = (1 - z) * n + z * h
    else:
        numbers |= {"input part": float(left[0]), "hidden part": float(right[0])}
        result = float(sums[0].tanh() if kind == "rnn_tanh" else sums[0].relu())
    arrays = {
        "input": step.x, "hidden": step.h, "weight_ih": w.ih[rows], "weight_hh": w.hh[rows],
        "bias": w.b_ih[rows] + w.b_hh[rows], "sums": sums,
    }  # fmt: skip
    formula = "f · c before + i · g" if kind == "lstm" and result == numbers["c"] else _FORMULAS[kind]
    return Arithmetic("gates", formula, result, numbers=numbers, arrays=arrays, **more)
