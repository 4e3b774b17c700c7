"""How alike two activations are: linear CKA, relative difference, correlation. In float64, chunk by chunk.

Numbers of tensors, and nothing else: which tensors belong together is ``alignment``'s, where they come from
``stream``'s business.

Kornblith, Norouzi, Lee and Hinton 2019, Similarity of neural network representations revisited,
arXiv:1905.00414; the unbiased estimate: Song et al. 2012, Feature selection via dependence maximization, JMLR
13, as used for CKA by Nguyen, Raghu and Kornblith 2021, arXiv:2010.15327.
"""

from __future__ import annotations

from math import inf, isfinite, isnan, prod, sqrt
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

__all__ = ["correlation", "examples", "linear_cka", "partners", "relative_difference"]

_CHUNK = 1 << 21  # numbers that are looked at together: some milliseconds
_CONSTANT = 1e-24  # share of the squares that is left of a constant once its mean is gone
_FEWEST = 4  # examples of the unbiased estimate


def examples(activation: Tensor, axis: int, samples: int, over: str) -> tuple[Tensor, str]:
    """Return an activation as ``[examples, features]``, a view or a copy, and what an example is.

    Parameters
    ----------
    activation : Tensor
        With its batch axis.
    axis : int
        Of the channels, or features, counted with the batch axis.
    samples : int
        In the batch.
    over : str
        ``"samples"``: each sample is an example, everything in it a feature. ``"positions"``: each position
        (of a map, a series, a sequence of tokens) of each sample is one, and the channels are the features.
        An activation without the batch first is taken by positions.

    Returns
    -------
    rows : Tensor ``[n, p]``
    what : str
        ``"samples"`` or ``"positions"``.
    """
    if activation.dim() < 2:
        return activation.reshape(-1, 1), "samples"
    if over == "samples" and len(activation) == samples:
        return activation.reshape(samples, -1), "samples"
    what = "positions" if activation.dim() > 2 else "samples"
    return activation.movedim(axis, -1).reshape(-1, activation.shape[axis]), what


def linear_cka(
    x: Tensor, y: Tensor, *, unbiased: bool = False, check: Callable[[], object] | None = None
) -> float | None:
    """Return the linear centered kernel alignment of two representations of the same examples.

    ``|Yc' Xc|^2 / (|Xc' Xc| |Yc' Yc|)`` in Frobenius norms, ``Xc`` being ``x`` less the mean of each feature:
    1 where one is the other rotated, reflected or scaled, 0 where nothing in them goes together. The features
    of the two need not be the same, or as many. Computed from products of features or of examples, whichever
    is less work.

    Parameters
    ----------
    x, y : Tensor
        ``[n, p]`` and ``[n, q]``, of any floating type; computed in float64.
    unbiased : bool
        From the unbiased estimates of HSIC: with fewer examples than features the plain one is close to 1
        for anything. May be a little below 0 then; needs four examples.
    check : callable, optional
        Called between chunks.

    Returns
    -------
    float or None
        None for fewer than two examples, for a representation that is the same for all of them, and for NaN
        or infinite values.
    """
    n = len(x)
    if len(y) != n:
        raise ValueError(f"x has {n} examples, y has {len(y)}.")
    if n < (_FEWEST if unbiased else 2) or not x.shape[1] or not y.shape[1]:
        return None
    look = check if check is not None else _nothing
    device = _accumulator(x)
    y = y.to(device)
    x = x.to(device)
    p, q = x.shape[1], y.shape[1]
    by_features = n * (p * p + q * q + p * q) <= n * n * (p + q)
    products = _of_features(x, y, look) if by_features else _of_examples(x, y, look)
    cross, own_x, own_y, diagonal_x, diagonal_y, squares = products
    for diagonal, square in ((diagonal_x, squares[0]), (diagonal_y, squares[1])):
        if not float(diagonal.sum()) > _CONSTANT * square:
            return None
    if unbiased:
        cross = _hsic(cross, diagonal_x, diagonal_y)
        own_x, own_y = _hsic(own_x, diagonal_x, diagonal_x), _hsic(own_y, diagonal_y, diagonal_y)
        if own_x <= 0 or own_y <= 0:
            return None
    found = cross / (sqrt(own_x) * sqrt(own_y))
    if not isfinite(found):
        return None
    return found if unbiased else min(found, 1.0)


def relative_difference(a: Tensor, b: Tensor, *, check: Callable[[], object] | None = None) -> float | None:
    """Return ``|a - b| / |a|`` of two activations of one shape: 0 for equal ones, None for NaN."""
    moved = own = 0.0
    for left, right in _flat(a, b):
        (check or _nothing)()
        moved += float((left - right).square_().sum())
        own += float(left.square().sum())
    if isnan(moved) or not isfinite(own):
        return None
    if own == 0:
        return 0.0 if moved == 0 else inf
    return sqrt(moved) / sqrt(own)


def correlation(a: Tensor, b: Tensor, *, check: Callable[[], object] | None = None) -> float | None:
    """Return Pearson's correlation of all numbers of two activations of one shape; None for a constant."""
    count = a.numel()
    if count < 2:
        return None
    sums = [0.0, 0.0]
    for left, right in _flat(a, b):
        (check or _nothing)()
        sums[0] += float(left.sum())
        sums[1] += float(right.sum())
    means = [one / count for one in sums]
    cross = own_a = own_b = square_a = square_b = 0.0
    for left, right in _flat(a, b):
        (check or _nothing)()
        square_a += float(left.square().sum())
        square_b += float(right.square().sum())
        from_a, from_b = left - means[0], right - means[1]
        cross += float((from_a * from_b).sum())
        own_a += float(from_a.square_().sum())
        own_b += float(from_b.square_().sum())
    if not (own_a > _CONSTANT * square_a and own_b > _CONSTANT * square_b):
        return None
    found = cross / (sqrt(own_a) * sqrt(own_b))
    return max(-1.0, min(1.0, found)) if isfinite(found) else None


def partners(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each feature of `x` the one of `y` that goes with it best.

    Parameters
    ----------
    x, y : Tensor
        ``[n, p]`` and ``[n, q]``: the same examples.

    Returns
    -------
    index : Tensor ``[p]``, int64
        -1 for a feature that does not vary.
    correlation : Tensor ``[p]``, float32
        The one of largest magnitude; 0 where there is none.
    """
    device = _accumulator(x)
    left, right = (_directions(one.to(device).double()) for one in (x, y))
    found = left.T @ right
    best = found.abs().argmax(1)
    value = found.gather(1, best[:, None])[:, 0]
    flat = left.abs().amax(0) == 0
    return best.masked_fill(flat, -1).cpu(), value.masked_fill(flat, 0.0).float().cpu()


def _nothing() -> None:
    """Check nothing."""


def _accumulator(tensor: Tensor) -> torch.device:
    """Where float64 is computed: on the tensor's own device, if that can."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def _directions(rows: Tensor) -> Tensor:
    """Return the columns without their means, of length 1; zeros where one is constant."""
    squares = rows.square().sum(0)
    rows = rows - rows.mean(0)
    own = rows.square().sum(0)
    varies = own > _CONSTANT * squares
    return torch.where(varies, rows / own.sqrt().clamp_min(1e-300), 0.0)


def _pieces(count: int, width: int) -> Iterator[slice]:
    """Cut `count` rows of a width into slices of about a chunk."""
    step = max(1, _CHUNK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


def _flat(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through the numbers of both, in float64."""
    device = _accumulator(a)
    left, right = a.reshape(-1), b.reshape(-1)
    for piece in _pieces(prod(a.shape), 1):
        yield left[piece].to(device).double(), right[piece].to(device).double()


_Products = tuple[float, float, float, "Tensor", "Tensor", tuple[float, float]]


def _of_features(x: Tensor, y: Tensor, check: Callable[[], object]) -> _Products:
    """Products of features, summed over chunks of examples: ``[p, q]``, ``[p, p]`` and ``[q, q]``."""
    means = []
    for one in (x, y):
        total = one.new_zeros(one.shape[1], dtype=torch.float64)
        for piece in _pieces(*one.shape):
            check()
            total += one[piece].double().sum(0)
        means.append(total / len(one))
    p, q = x.shape[1], y.shape[1]
    cross, own_x, own_y = (x.new_zeros(size, dtype=torch.float64) for size in ((p, q), (p, p), (q, q)))
    diagonals: tuple[list[Tensor], list[Tensor]] = ([], [])
    squares = [0.0, 0.0]
    for piece in _pieces(len(x), max(p, q)):
        check()
        left, right = x[piece].double(), y[piece].double()
        squares[0] += float(left.square().sum())
        squares[1] += float(right.square().sum())
        left, right = left - means[0], right - means[1]
        cross.addmm_(left.T, right)
        own_x.addmm_(left.T, left)
        own_y.addmm_(right.T, right)
        diagonals[0].append(left.square_().sum(1))
        diagonals[1].append(right.square_().sum(1))
    sums = [float(one.square_().sum()) for one in (cross, own_x, own_y)]
    return (*sums, torch.cat(diagonals[0]), torch.cat(diagonals[1]), (squares[0], squares[1]))  # type: ignore[return-value]  # three sums


def _of_examples(x: Tensor, y: Tensor, check: Callable[[], object]) -> _Products:
    """Products of examples, ``[n, n]``, summed over chunks of features."""
    grams, squares = [], []
    for one in (x, y):
        gram = one.new_zeros((len(one), len(one)), dtype=torch.float64)
        square = 0.0
        for piece in _pieces(one.shape[1], len(one)):
            check()
            part = one[:, piece].double()
            square += float(part.square().sum())
            part = part - part.mean(0)
            gram.addmm_(part, part.T)
        grams.append(gram)
        squares.append(square)
    left, right = grams
    return (
        float((left * right).sum()),
        float(left.square().sum()),
        float(right.square().sum()),
        left.diagonal().clone(),
        right.diagonal().clone(),
        (squares[0], squares[1]),
    )


def _hsic(cross: float, diagonal_x: Tensor, diagonal_y: Tensor) -> float:
    """Return the unbiased estimate of HSIC.

    Song et al. 2012, equation 5, with ``K`` and ``L`` of centered features: their rows sum to zero, so with
    their diagonals taken away the rows sum to what was on them.
    """
    n = len(diagonal_x)
    both = float((diagonal_x * diagonal_y).sum())
    alone = float(diagonal_x.sum()) * float(diagonal_y.sum())
    return (cross - both + alone / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3))
