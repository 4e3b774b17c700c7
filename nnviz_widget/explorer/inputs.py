"""The door: what a user hands to `explore` becomes something that can be traced, or a clear error.

Here a batch is understood (tensor, array, list, tuple, dict), one sample is cut out of it, and names,
targets and layers are checked, all before anything runs. Rules: what is unambiguous simply works (arrays,
one image without a batch axis, another float type, another device); what could be meant in two ways is
refused with a way out. Nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnviz_widget.errors import InputError, UnknownNameError, nearest

__all__ = ["Batch", "no_batch", "read_batch", "read_class_names", "read_device", "read_layer", "read_targets"]

# Dimensions that the first layer of a model wants, batch axis included.
_RANKS: tuple[tuple[type[nn.Module], int], ...] = (
    (nn.Conv1d, 3),
    (nn.Conv2d, 4),
    (nn.Conv3d, 5),
    (nn.BatchNorm2d, 4),
    (nn.Linear, 2),
    (nn.Embedding, 2),
)


@dataclass(frozen=True)
class Batch:
    """Inputs as ``model(*args, **kwargs)`` takes them, all samples at once.

    Attributes
    ----------
    args, kwargs
        What the model is called with; tensors whose first axis is `count` long hold one row for each
        sample.
    count : int
        Number of samples.
    main : Tensor
        The first tensor ``[count, ...]``: the one that is shown and that saliency is drawn on.
    dtype : dtype or None
        Floating inputs are brought to this type, sample by sample.
    device : device or None
        All inputs are brought here, sample by sample: a large batch stays where it is.
    given : bool
        False where there are no inputs, and the model can not be run.
    painted : (int, Tensor) or None
        One more sample, after the others: what was painted, ``[1, ...]`` like `main`, and over which sample.
        Of several inputs, the others are those of that sample.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    main: Tensor
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    given: bool = True
    painted: tuple[int, Tensor] | None = None

    @property
    def total(self) -> int:
        """Number of samples that can be on the screen, with the painted one."""
        return self.count + (self.painted is not None)

    def row(self, index: int) -> Tensor:
        """Return one sample of `main`, ``[1, ...]``."""
        if self.painted is not None and index == self.count:
            return self.painted[1]
        return self.main[index : index + 1]

    def sample(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return ``args, kwargs`` of one sample, with a batch axis of length 1."""
        return (
            tuple(self._cut(value, index) for value in self.args),
            {key: self._cut(value, index) for key, value in self.kwargs.items()},
        )

    def whole(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return ``args, kwargs`` of all samples that were given, in the model's type, where they are."""
        return tuple(map(self._typed, self.args)), {k: self._typed(v) for k, v in self.kwargs.items()}

    def _typed(self, value: Any) -> Any:
        floats = isinstance(value, Tensor) and value.is_floating_point() and self.dtype is not None
        return value.to(self.dtype) if floats else value

    def _cut(self, value: Any, index: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value is self.main:
            value = self.row(index)
        elif value.dim() > 0 and len(value) == self.count:
            at = self.painted[0] if self.painted is not None and index == self.count else index
            value = value[at : at + 1]
        dtype = self.dtype if value.is_floating_point() else None
        return value.to(device=self.device or value.device, dtype=dtype or value.dtype)


def no_batch(model: nn.Module) -> Batch:
    """Return what stands for the inputs where none were given: one sample of nothing."""
    return Batch((), {}, 1, torch.zeros(1, 0, 0, 0, 0), device=_device_of(model), given=False)


def read_batch(model: nn.Module, inputs: Any, device: torch.device | None = None) -> Batch:
    """Understand what the user gave as inputs.

    Parameters
    ----------
    model : Module
        Says which type, device and rank are wanted; it is not run.
    inputs : tensor, array, list of equal tensors, tuple of inputs, or dict of keyword inputs
        A tuple or dict stands for several inputs of the model, everything else for one.
    device : device, optional
        Where the inputs go; by default where the model is.

    Raises
    ------
    InputError
        What was given can not be a batch; says what to do instead.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = {str(key): _read_one(value, f"inputs[{key!r}]") for key, value in inputs.items()}
    elif isinstance(inputs, tuple):
        args = tuple(_read_one(value, f"inputs[{index}]") for index, value in enumerate(inputs))
    else:
        args = (_read_batch_alone(inputs),)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not tensors:
        what = f"a {type(inputs).__name__} without any tensor"
        raise InputError(f"inputs is {what}.", hint="Give at least one tensor or array with a batch axis.")
    if len(tensors) == 1 and _lacks_batch(model, tensors[0]):
        args = tuple(value.unsqueeze(0) if isinstance(value, Tensor) else value for value in args)
        kwargs = {
            key: value.unsqueeze(0) if isinstance(value, Tensor) else value for key, value in kwargs.items()
        }
    main = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    if main.dim() == 0 or len(main) == 0:
        raise InputError(
            f"inputs of shape {tuple(main.shape)} has no samples.",
            hint="Give a batch: a tensor whose first axis are the samples.",
        )
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    _refuse_bytes(model, main, weight)
    return Batch(
        args,
        kwargs,
        len(main),
        main,
        weight.dtype if weight is not None else None,
        device or _device_of(model),
    )


def _read_one(value: Any, name: str) -> Any:
    """Return a tensor where the value is one or an array of numbers; anything else passes through."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise InputError(
                f"{name} is an array of {value.dtype}.", hint="Give numbers: array.astype('float32')."
            )
        return torch.from_numpy(np.array(value))
    return value


def _read_batch_alone(value: Any) -> Tensor:
    if isinstance(value, list):
        return _stack(value)
    value = _read_one(value, "inputs")
    if isinstance(value, Tensor):
        return value
    hint = "Give a tensor [batch, ...], an array, a list of equal tensors, a tuple or a dict of inputs."
    if hasattr(value, "convert") and hasattr(value, "size"):
        hint = "Turn the picture into a tensor first: torchvision.transforms.functional.to_tensor(image)."
    elif hasattr(value, "__iter__") and not isinstance(value, str):
        hint = "Take one batch out of it first: inputs, targets = next(iter(loader))."
    raise InputError(f"inputs is a {type(value).__name__}, which is not a batch.", hint=hint)


def _stack(values: list[Any]) -> Tensor:
    if not values:
        raise InputError("inputs is an empty list.", hint="Give at least one sample.")
    tensors = []
    for index, value in enumerate(values):
        tensor = _read_one(value, f"inputs[{index}]")
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"inputs is a list whose element {index} is a {type(value).__name__}, not a tensor.",
                hint="Give one tensor [batch, ...], or a list of tensors of the same shape.",
            )
        tensors.append(tensor)
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise InputError(
            f"inputs is a list of tensors of different shapes: {sorted(shapes)[:4]}.",
            hint="Bring them to one shape, or give a tuple if they are several inputs of the model.",
        )
    return torch.stack([tensor.to(tensors[0]) for tensor in tensors])


def _first_layer(model: nn.Module) -> nn.Module | None:
    for module in model.modules():
        childless = next(module.children(), None) is None
        if childless and next(module.parameters(recurse=False), None) is not None:
            return module
    return None


def _lacks_batch(model: nn.Module, tensor: Tensor) -> bool:
    """Whether this is one sample: the first layer wants exactly one axis more than there is."""
    first = _first_layer(model)
    for kind, rank in _RANKS:
        if isinstance(first, kind):
            return tensor.dim() == rank - 1
    return False


def _refuse_bytes(model: nn.Module, main: Tensor, weight: Tensor | None) -> None:
    """Pixels that are still whole numbers could be meant from 0 to 1 or from 0 to 255: ask."""
    wants_floats = isinstance(_first_layer(model), (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))
    if weight is not None and wants_floats and not (main.is_floating_point() or main.is_complex()):
        raise InputError(
            f"inputs has dtype {main.dtype}, the model computes in {weight.dtype}.",
            hint="Give what it was trained on; bytes usually become inputs.float() / 255, then normalised.",
        )


def _device_of(model: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


def read_device(device: Any) -> torch.device | None:
    """Return the device that was named, or None for where the model is; `InputError` when it is not there."""
    if device is None:
        return None
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} can not be used: {str(error).splitlines()[0]}",
            hint="Leave device out to use the model's own, or give 'cpu'.",
        ) from None
    return place


def read_class_names(class_names: Any) -> dict[int, str] | None:
    """Return index -> name; whether there are as many as classes is known only after the first run.

    Parameters
    ----------
    class_names : list of str, or dict of int to str, or None
        Other values than text are shown as text.

    Raises
    ------
    InputError
        Not a list or a dict of that kind.
    """
    if class_names is None:
        return None
    if isinstance(class_names, Mapping):
        names = {}
        for index, name in class_names.items():
            if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
                raise InputError(
                    f"class_names has the key {index!r}, expected class indices from 0.",
                    hint="Turn a dict of name to index around: {i: name for name, i in class_names.items()}.",
                )
            names[int(index)] = str(name)
    elif isinstance(class_names, str) or not hasattr(class_names, "__iter__"):
        what = type(class_names).__name__
        raise InputError(f"class_names is {what}, expected a list of names or a dict of index to name.")
    else:
        names = {index: str(name) for index, name in enumerate(class_names)}
    if not names:
        raise InputError("class_names is empty.", hint="Leave it out to show class indices.")
    return names


def read_targets(target: Any, count: int, class_names: Mapping[int, str] | None) -> list[int] | None:
    """Return the true class of each sample.

    Parameters
    ----------
    target : int, str, list, array or tensor, or None
        One for all samples or one for each; a name where there are class names.
    count : int
        Number of samples.
    class_names : mapping, optional
        Index -> name.

    Raises
    ------
    InputError
        Not one class for each sample.
    """
    if target is None:
        return None
    values: list[Any]
    if isinstance(target, (Tensor, np.ndarray)):
        values = np.asarray(target.detach().cpu() if isinstance(target, Tensor) else target).tolist()
        values = values if isinstance(values, list) else [values]
    elif isinstance(target, (int, np.integer, str)):
        values = [target]
    elif isinstance(target, Sequence):
        values = [value.item() if isinstance(value, (Tensor, np.generic)) else value for value in target]
    else:
        raise InputError(
            f"target is {type(target).__name__}, expected a class index, or one for each sample."
        )
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise InputError(
            f"target has {len(values)} classes for {count} samples.", hint="Give one class for each sample."
        )
    return [_read_class(value, class_names) for value in values]


def _read_class(value: Any, class_names: Mapping[int, str] | None) -> int:
    if isinstance(value, str):
        for index, name in (class_names or {}).items():
            if name == value:
                return index
        raise UnknownNameError(
            f"target {value!r} is not among class_names.",
            hint=nearest(value, (class_names or {}).values()).strip(),
        )
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise InputError(f"target {value!r} is not a class index.", hint="Give whole numbers from 0.")
    return int(value)


def read_layer(model: nn.Module, layer: Any) -> str | None:
    """Return the name of a layer that was given as name, node id or module.

    A dotted name must be a module of the model; ids with ``/``, ``@`` or ``#`` and the names of inputs and
    outputs are known only after the first run and pass.

    Raises
    ------
    UnknownNameError
        No such module; names the nearest.
    """
    if layer is None:
        return None
    names: list[str] = [name for name, _ in model.named_modules()]
    if isinstance(layer, nn.Module):
        for name, module in zip(names, model.modules(), strict=True):
            if module is layer:
                return name
        raise UnknownNameError(f"The given {type(layer).__name__} is not a module of this model.")
    if not isinstance(layer, str):
        raise InputError(f"layer is {type(layer).__name__}, expected a dotted name, a node id or a module.")
    if layer in names or any(mark in layer for mark in "/@#:") or layer in ("input", "output"):
        return layer
    raise UnknownNameError(f"The model has no layer {layer!r}.", hint=nearest(layer, names).strip())
