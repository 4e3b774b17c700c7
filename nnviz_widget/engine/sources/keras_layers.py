"""A Keras 3 model on the torch backend, as modules: one for each layer, nested as the layers are.

A Keras model computes with torch and yet is no tree of torch modules: its layers are kept in lists of its
own. The views made here are that tree. A view stands for one layer: it holds the layer's weights (the very
same tensors), and while the model runs, calling the layer calls its view, where the recorder's hooks hang.
The layers are shared with the user's model and never copied (Keras copies by writing a file); all that is
done to them is that for the time of a run they call the views.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["KerasView", "view_of"]


class _Held:
    """A layer that a deep copy shares rather than copies."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class KerasView(nn.Module):
    """One layer of Keras as a module of torch.

    Attributes
    ----------
    held : object
        Its ``layer`` is the layer of Keras.
    """

    def __init__(self, layer: Any, *, root: bool = False) -> None:
        super().__init__()
        self.held = _Held(layer)
        self.root = root
        inner = list(dict.fromkeys(layer._flatten_layers(include_self=False, recursive=False)))
        below = {id(weight) for part in inner for weight in part.weights}
        for weight in layer.weights:
            if id(weight) not in below:
                self.register_parameter(_plain(weight.name, self._parameters), weight.value)
        for part in inner:
            if part.weights or not _is_input(part):
                self.add_module(_plain(part.name, self._modules), _typed(part))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; the root runs the whole model in inference mode, through the views of its layers."""
        layer = self.held.layer
        if not self.root:
            return type(layer).call(layer, *args, **kwargs)
        with _called_by_views(self), _Quiet():
            return layer(*args, **{"training": False, **kwargs} if layer._call_has_training_arg else kwargs)

    def path_of(self, part: object) -> str | None:
        """Return the path of the view of a layer; None for what is no layer of this model."""
        views = [(path, view) for path, view in self.named_modules() if isinstance(view, KerasView)]
        return next((path for path, view in views if view.held.layer is part), None)


def view_of(layer: Any) -> KerasView:
    """Return a Keras model or layer as a tree of modules.

    Raises
    ------
    InputError
        Keras computes with another backend, or the model has not been built.
    """
    import keras  # noqa: PLC0415  an extra; whoever made the model has imported it

    if keras.config.backend() != "torch":
        raise InputError(
            f"This model of Keras computes with {keras.config.backend()}, not with torch.",
            hint="Set KERAS_BACKEND=torch in the environment before Keras is imported.",
        )
    if not layer.built:
        raise InputError(
            f"The model of Keras {layer.name!r} has no weights yet.", hint="Run it once: model(inputs)."
        )
    return _typed(layer, root=True)


def _typed(layer: Any, *, root: bool = False) -> KerasView:
    kind = type(type(layer).__name__, (KerasView,), {})
    view: KerasView = kind(layer, root=root)
    return view


def _is_input(layer: Any) -> bool:
    return type(layer).__name__ == "InputLayer"


def _plain(name: str, taken: Any) -> str:
    """Return a name without dots, and not one of those taken."""
    base = name.replace(".", "_").replace("/", "_") or "layer"
    name, count = base, 0
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    return name


@contextmanager
def _called_by_views(root: KerasView) -> Iterator[None]:
    """Let the layers call their views in this block; only on this thread, and each back to itself."""
    with ExitStack() as stack:
        for view in root.modules():
            if isinstance(view, KerasView) and view is not root:
                stack.enter_context(_redirected(view))
        yield


@contextmanager
def _redirected(view: KerasView) -> Iterator[None]:
    layer, thread = view.held.layer, threading.get_ident()
    usual = type(layer).call.__get__(layer)

    def call(*args: Any, **kwargs: Any) -> Any:
        # The user's own thread may train this layer at the same moment.
        return view(*args, **kwargs) if threading.get_ident() == thread else usual(*args, **kwargs)

    had = layer.__dict__.get("call")
    layer.__dict__["call"] = call
    try:
        yield
    finally:
        if had is None:
            del layer.__dict__["call"]
        else:
            layer.__dict__["call"] = had


class _Quiet(TorchFunctionMode):
    """Leave out the conversions that convert nothing, which Keras does before every operation."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to and len(args) == 2 and not kwargs and _is_already(args[0], args[1]):
            return args[0]
        return func(*args, **kwargs)


def _is_already(tensor: Tensor, wanted: Any) -> bool:
    if isinstance(wanted, torch.dtype):
        return tensor.dtype == wanted
    if not isinstance(wanted, (str, torch.device)):
        return False
    device = torch.device(wanted)
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)
