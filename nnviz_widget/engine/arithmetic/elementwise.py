"""Activation functions, and operations on numbers that stand at the same place.

The recorded call itself is made on the single numbers, in float64; its curve is the same call on many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic, Operand
from nnviz_widget.engine.arithmetic.values import NotApartError
from nnviz_widget.engine.recording import Ref, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__ = ["FORMULAS", "curve_of", "formula_of"]

#: Functions of one number; `{}` stands for further arguments.
FORMULAS = {
    "relu": "max(0, x)",
    "relu6": "min(max(0, x), 6)",
    "leaky_relu": "x for x ≥ 0, else slope · x",
    "prelu": "x for x ≥ 0, else weight · x",
    "rrelu": "x for x ≥ 0, else mean slope · x",
    "elu": "x for x ≥ 0, else α (exp(x) − 1)",
    "selu": "scale · (x for x ≥ 0, else α (exp(x) − 1))",
    "celu": "x for x ≥ 0, else α (exp(x / α) − 1)",
    "gelu": "x · Φ(x), Φ the normal distribution",
    "silu": "x · sigmoid(x)",
    "mish": "x · tanh(log(1 + exp(x)))",
    "sigmoid": "1 / (1 + exp(−x))",
    "log_sigmoid": "log(1 / (1 + exp(−x)))",
    "tanh": "(exp(x) − exp(−x)) / (exp(x) + exp(−x))",
    "softplus": "log(1 + exp(β x)) / β",
    "softsign": "x / (1 + |x|)",
    "hardswish": "x · min(max(0, x + 3), 6) / 6",
    "hardsigmoid": "min(max(0, x + 3), 6) / 6",
    "hardtanh": "min(max(low, x), high)",
    "hardshrink": "x where |x| > λ, else 0",
    "softshrink": "x moved towards 0 by λ, or 0",
    "tanhshrink": "x − tanh(x)",
    "threshold": "x where x > threshold, else value",
    "exp": "exp(x)",
    "log": "log(x)",
    "log1p": "log(1 + x)",
    "expm1": "exp(x) − 1",
    "sqrt": "√x",
    "rsqrt": "1 / √x",
    "square": "x²",
    "abs": "|x|",
    "neg": "−x",
    "reciprocal": "1 / x",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "erf": "erf(x)",
    "sign": "sign(x)",
    "floor": "⌊x⌋",
    "ceil": "⌈x⌉",
    "round": "x, rounded",
    "clamp": "x between two bounds",
    "clip": "x between two bounds",
    "clamp_min": "max(bound, x)",
    "clamp_max": "min(bound, x)",
    "nan_to_num": "x where it is a number",
}
_BOTH = {
    "add": "a + b",
    "sub": "a − b",
    "mul": "a · b",
    "div": "a / b",
    "pow": "a ^ b",
    "remainder": "a mod b",
    "floor_divide": "⌊a / b⌋",
    "maximum": "max(a, b)",
    "minimum": "min(a, b)",
    "where": "b where a, else c",
    "masked_fill": "c where b, else a",
    "addcmul": "a + b · c",
    "addcdiv": "a + b / c",
    "lerp": "a + c · (b − a)",
    "atan2": "atan2(a, b)",
}
_REVERSED = {
    "sub": "b − a",
    "div": "b / a",
    "pow": "b ^ a",
    "floor_divide": "⌊b / a⌋",
    "remainder": "b mod a",
}


@explains(" ".join(FORMULAS))
def function(case: Case) -> Arithmetic:
    """Send one number through a curve."""
    part = _argument(case)
    operand = case.operand("x", part, case.index)
    call = curve_of(case)
    x = case.values(part)[case.index].double().cpu().reshape(1)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = call(x)
        (slope,) = torch.autograd.grad(y.sum(), x, allow_unused=True) if y.requires_grad else (None,)
    numbers = {"x": operand.value, "slope": 0.0 if slope is None else float(slope)}
    return Arithmetic(
        "function",
        formula_of(case),
        float(y.detach()),
        numbers=numbers,
        operands=[operand],
        source=operand.node,
    )


@explains("glu")
def gated(case: Case) -> Arithmetic:
    """Multiply one half by the sigmoid of the other."""
    given = case.bind("input dim", dim=-1)
    x, dim = case.tensor(given["input"]), given["dim"]
    other = list(case.index)
    other[dim] += x.shape[dim] // 2
    operands = [
        case.operand("a", given["input"], case.index),
        case.operand("b", given["input"], tuple(other)),
    ]
    gate = float(torch.sigmoid(x[tuple(other)]))
    result = operands[0].value * gate
    source = operands[0].node
    numbers = {"a": operands[0].value, "b": operands[1].value, "sigmoid(b)": gate}
    return Arithmetic(
        "elementwise", "a · sigmoid(b)", result, numbers=numbers, operands=operands, source=source
    )


@explains(" ".join(_BOTH))
def elementwise(case: Case) -> Arithmetic:
    """Make the call on the numbers that stand at this place."""
    op = case.op
    operands: list[Operand] = []
    numbers: list[Any] = []
    for name, part in zip("abc", op.args, strict=False):
        if isinstance(part, Ref):
            tensor = case.values(part)
            index = tuple(
                0 if size == 1 else at
                for at, size in zip(case.index[len(case.index) - tensor.dim() :], tensor.shape, strict=True)
            )
            operands.append(case.operand(name, part, index))
            number = tensor[index].cpu().reshape(1)
            numbers.append(number.double() if tensor.is_floating_point() else number)
        elif isinstance(part, (int, float)):
            operands.append(case.operand(name, part, ()))
            numbers.append(part)
        else:
            raise NotApartError("one of its arguments is no number.")
    if any(isinstance(part, Ref) for part in op.kwargs.values()):
        raise NotApartError("it is called with tensors by name.")
    assert op.func is not None
    kwargs = {key: value for key, value in op.kwargs.items() if key != "out"}
    with torch.no_grad():
        result = op.func(*numbers, **kwargs)
    raw = str(getattr(op.func, "__name__", ""))
    swapped = raw.strip("_") in {"rsub", "rdiv", "rtruediv", "rpow", "rfloordiv", "rmod"}
    formula = _REVERSED[op.name] if swapped and raw != "rsub_" and op.name in _REVERSED else _BOTH[op.name]
    alpha = kwargs.get("alpha", 1)
    if alpha != 1:
        formula = f"{formula[:-1]}{alpha} · b"
    source = next((operand.node for operand in operands if operand.node), "")
    told = {operand.name: operand.value for operand in operands}
    return Arithmetic("elementwise", formula, float(result), numbers=told, operands=operands, source=source)


def _argument(case: Case) -> Ref:
    part = case.bind("input")["input"]
    if not isinstance(part, Ref):
        raise NotApartError("its argument is no tensor.")
    return part


def curve_of(case: Case) -> Any:
    """Return the recorded function, further arguments included, as one of a float64 tensor ``[P]``."""
    op = case.op
    by_name = not op.args
    rest = case.values.filled(op.args[1:])
    kwargs = {k: case.values.filled(v) for k, v in op.kwargs.items() if k not in {"input", "out", "inplace"}}
    if op.name == "prelu":
        weight = (rest[0] if rest else kwargs["weight"]).double().cpu()
        own = weight.reshape(-1)[case.index[1] if weight.numel() > 1 else 0]
        return lambda x: torch.where(x >= 0, x, own * x)
    if any(isinstance(part, torch.Tensor) for part in (*rest, *kwargs.values())):
        raise NotApartError("it takes further tensors.")
    if op.name == "rrelu":
        kwargs["training"] = False
    func = op.func
    assert func is not None

    def call(x: Tensor) -> Tensor:
        # A copy: some write into what they are given.
        found = func(**{"input": x.clone(), **kwargs}) if by_name else func(x.clone(), *rest, **kwargs)
        return tensors_of(found)[0][1]

    return call


def formula_of(case: Case) -> str:
    """Return the formula of an activation function, with the numbers it was called with."""
    op = case.op
    formula = FORMULAS[op.name]
    named = {key: value for key, value in op.kwargs.items() if isinstance(value, float)}
    said = ", ".join(f"{key} = {value:.4g}" for key, value in named.items())
    if op.name == "gelu" and op.kwargs.get("approximate") == "tanh":
        said = "by tanh"
    return f"{formula} ({said})" if said else formula
