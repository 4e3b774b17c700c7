"""What an attribution gives, whole or in part: values, how far to trust them, and what they cost.

Plain data. How it is computed, and in which steps, lives elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from nnviz_widget.engine.attribution.stream import Question
    from nnviz_widget.engine.replay.replays import Recomputed

__all__ = ["Attribution", "Part"]


@dataclass(frozen=True)
class Part:
    """What a method has so far.

    Attributes
    ----------
    done, total : int
        Rows of model passes done, and of how many; equal at the end.
    values : callable
        Makes the attribution from what was gathered so far: tensors like the attributed ones, or like the
        layer's activation. A callable, so that parts nobody looks at cost nothing.
    delta : callable, optional
        Makes the completeness error ``sum(values) - (F(x) - F(x'))``, ``[N]``, signed.
    stderr : callable, optional
        Makes the standard error of the values, like the values.
    layer_values : callable, optional
        Makes the map at the layer's own resolution, where the values are that map enlarged to the input.
    caution : str
        What to know before trusting it, in words for a student.
    """

    done: int
    total: int
    values: Callable[[], tuple[Tensor, ...]]
    delta: Callable[[], Tensor] | None = None
    stderr: Callable[[], tuple[Tensor, ...]] | None = None
    layer_values: Callable[[], Tensor] | None = None
    caution: str = ""


@dataclass
class Attribution:
    """How much each element of the input (or of a layer) speaks for the target.

    Attributes
    ----------
    values : Tensor or tuple of Tensor
        Signed, float32 (float64 for inputs of float64), of the shape of the input, detached, on the engine's
        device; a tuple where there are several inputs. Of whole-number inputs the values of their embeddings,
        ``[N, T, D]``. Layer methods give values of the shape of the layer's activation.
    method : str
        Its name, as `Engine.methods` has it.
    options : dict
        Every option, also those left at their defaults; the layer that was taken where none was given.
    target : object
        What was explained: as given, or the class of each sample that was taken where none was given.
    delta : Tensor or None
        Completeness error of each sample, ``sum(values) - (F(x) - F(x'))``, ``[N]``, in units of the target's
        score, where the method promises completeness.
    stderr : Tensor, tuple of Tensor or None
        Standard error of the values where the method samples.
    moved : float or None
        How far the values moved since the partial result before, the mean over all of them as a share of the
        largest; where neither `delta` nor `stderr` tells how far off they are, and from the second on.
    layer_values : Tensor or None
        Of class activation maps ``[N, 1, h, w]``, before they are enlarged to the input.
    progress : float
        From 0 to 1; 1 for a result that is whole.
    forward_passes, backward_passes : int
        Samples that went forward and backward through the model, counted one by one.
    recomputed : Recomputed or None
        How much of the model ran for variants of the input, where only what changed was computed anew; None
        for methods without variants.
    seconds, seconds_left : float
        Wall time spent in the engine so far, and about how much is still to come.
    cautions : tuple of str
        Why not to trust it here, in plain words; empty where nothing speaks against it.
    epoch : int
        Of the weights that it was computed from.
    consistent : bool
        False where the weights moved meanwhile and could not be held still.
    call : str
        The Python that computes it again.
    question : Question or None
        What was asked, with the inputs: what `Engine.evaluate` needs. Not saved.
    """

    values: Tensor | tuple[Tensor, ...]
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    delta: Tensor | None = None
    stderr: Tensor | tuple[Tensor, ...] | None = None
    moved: float | None = None
    layer_values: Tensor | None = None
    progress: float = 1.0
    forward_passes: int = 0
    backward_passes: int = 0
    recomputed: Recomputed | None = None
    seconds: float = 0.0
    seconds_left: float = 0.0
    cautions: tuple[str, ...] = ()
    epoch: int = 0
    consistent: bool = True
    call: str = ""
    question: Question | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        shapes = [tuple(tensor.shape) for tensor in self.tensors]
        part = "" if self.progress >= 1 else f", {self.progress:.0%}"
        return f"Attribution({self.method}, {shapes[0] if len(shapes) == 1 else shapes}{part})"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The values as a tuple, also of a single input."""
        return (self.values,) if isinstance(self.values, Tensor) else self.values

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write values, errors and parameters as a NumPy archive (``.npz``).

        Parameters
        ----------
        file : str, path or open file
            Gets ``values`` (``values_0``, ``values_1``, ... of several inputs), ``delta``, ``stderr`` and
            ``layer_values`` where there are any, and ``parameters``: method, options, target, passes, seconds
            and the call, as JSON text.
        """
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, value in (
            ("values", self.values),
            ("stderr", self.stderr),
            ("delta", self.delta),
            ("layer_values", self.layer_values),
        ):
            if isinstance(value, Tensor):
                arrays[name] = value.cpu().numpy()
            elif value is not None:
                arrays |= {f"{name}_{i}": tensor.cpu().numpy() for i, tensor in enumerate(value)}
        told = {
            "method": self.method,
            "options": self.options,
            "target": self.target,
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "seconds": self.seconds,
            "progress": self.progress,
            "cautions": self.cautions,
            "call": self.call,
        }
        arrays["parameters"] = np.array(json.dumps(told, default=_plain))
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # NumPy's stubs want its own options


def _plain(value: Any) -> Any:
    """Return something that JSON can hold."""
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() <= 64 else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return repr(value)
