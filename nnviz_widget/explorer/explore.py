"""`explore`: from what the user has to an explorer, or to a clear error before anything is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from nnviz_widget.engine.details import type_name
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.sharing import named_parts, named_weights, unwrap
from nnviz_widget.engine.sources import adapt
from nnviz_widget.errors import InputError, NNVizError, UnknownNameError, nearest
from nnviz_widget.explorer import cells
from nnviz_widget.explorer import inputs as door
from nnviz_widget.explorer.collecting import OWN, seldom
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.pictures import read_denormalize
from nnviz_widget.explorer.widget import Explorer, front_end

if TYPE_CHECKING:
    import os

    from torch.export import ExportedProgram

    from nnviz_widget.explorer.inputs import Batch

__all__ = ["explore"]

_OPTIONS = ("class_names", "target", "denormalize", "device", "layer")


@seldom(OWN)
def explore(
    model: nn.Module | ExportedProgram | str | os.PathLike[str],
    inputs: Any = ...,
    *,
    class_names: Any = None,
    target: Any = None,
    denormalize: Any = None,
    device: Any = None,
    layer: Any = None,
    **unknown: Any,
) -> Explorer:
    """Show what a model does with some inputs.

    Returns at once; the first run goes on in the background. The model is left exactly as it is: its
    weights are shared, not copied, and its modes, hooks and gradients are never touched.

    Parameters
    ----------
    model : Module, torch.export.ExportedProgram, keras.Model, or path of an ``.onnx`` file
        Any PyTorch model, in train or eval mode; it is looked at in eval mode. What else it may be is said at
        `Engine`. Where it is too big to run, the graph has shapes and no values, and the page says so.
    inputs : tensor, array, list of equal tensors, tuple, or dict, optional
        A batch ``[N, ...]`` (one picture ``[C, H, W]`` will do), or several inputs of the model as a tuple
        (positional) or dict (by keyword). Without them the modules are shown, and nothing is run.
    class_names : list of str, or dict of int to str, optional
        Names of the classes, in the order of the outputs.
    target : int, str, list or tensor, optional
        The true class of each sample, or one for all.
    denormalize : callable, "imagenet", (mean, std), optional
        How inputs become pictures: a function of a batch that returns values from 0 to 1, ImageNet's mean
        and std, or others. By default the range is guessed.
    device : str or device, optional
        Where to compute; by default where the model is.
    layer : str or Module, optional
        Selected at first.

    Returns
    -------
    explorer : Explorer
        A widget; the last line of a cell shows it.

    Raises
    ------
    InputError
        Something does not fit; the message says what to give instead.

    Examples
    --------
    >>> import nnviz_widget as nnviz
    >>> demo = nnviz.demo.shapes()
    >>> w = nnviz.explore(demo.model, demo.inputs, class_names=demo.class_names, target=demo.targets)
    >>> w.select("layer1", channel=3, pixel=(5, 5))
    >>> w.saliency.shape
    (3, 64, 64)
    >>> w.close()
    """
    cells.clear_earlier_run()
    for name in unknown:
        raise UnknownNameError(
            f"explore() has no argument {name!r}.",
            hint=nearest(name, _OPTIONS).strip() or f"It has {', '.join(_OPTIONS)}.",
        )
    source = adapt(model)
    if not isinstance(source.module, nn.Module):
        raise InputError(
            f"model is {_kind(model)}, expected a torch.nn.Module.", hint=_model_hint(model, inputs)
        )
    module = source.module
    place = door.read_device(device)
    batch = door.no_batch(module) if inputs is ... else door.read_batch(module, inputs, place)
    names = door.read_class_names(class_names)
    targets = door.read_targets(target, batch.count, names)
    undo = read_denormalize(denormalize, batch.main)
    known = source.path_of(layer) if source.path_of is not None else None
    first_layer = door.read_layer(module, layer if known is None else known)
    front_end("index.js")
    engine = Engine(source, device=place)
    try:
        exploration = Exploration(engine, batch, names=names, targets=targets, denormalize=undo)
        explorer = Explorer(exploration, _info(module, batch, names, targets), layer=first_layer)
    except BaseException:
        engine.close()
        raise
    try:
        _check_names(module, explorer, exploration)
    except BaseException:
        explorer.close()
        raise
    cells.claim(explorer)
    return explorer


def _check_names(model: nn.Module, explorer: Explorer, exploration: Exploration) -> None:
    """Compare class names, targets and layer with the first run; wait for it only where they look wrong."""
    needed = {len(exploration.names)} if exploration.names is not None else set()
    needed |= {max(exploration.targets) + 1} if exploration.targets else set()
    classes = _guess_classes(model) if needed else 0
    fits = all(count <= classes for count in needed) and (
        not exploration.names or len(exploration.names) == classes
    )
    layer = explorer.selection["layer"]
    marked = layer is not None and any(mark in layer for mark in "/@#:")
    if fits and not marked:
        return
    try:
        trace = exploration.wait()
    except NNVizError:
        return  # the explorer shows why the model did not run
    problem = exploration.class_problem(trace)
    if problem is not None:
        raise problem
    if marked and trace.complete:
        exploration.resolve(layer)


def _guess_classes(model: nn.Module) -> int:
    """How many classes the last layer seems to have; a wrong guess only costs waiting for the first run."""
    sizes = [module.out_features for _, module in named_parts(model) if isinstance(module, nn.Linear)]
    return sizes[-1] if sizes else 0


def _info(
    model: nn.Module, batch: Batch, names: dict[int, str] | None, targets: list[int] | None
) -> dict[str, Any]:
    parameters = {id(parameter): parameter.numel() for _, parameter in named_weights(model)}
    info: dict[str, Any] = {
        "model": type_name(unwrap(model)),
        "params": sum(parameters.values()),
        "flops": 0,
        "input_shape": list(batch.main.shape[1:]),
        "samples": batch.count,
        "device": str(batch.device or batch.main.device),
        "dtype": str(batch.dtype or batch.main.dtype).removeprefix("torch."),
        "has_targets": targets is not None,
    }
    if names is not None:
        info["class_names"] = [names.get(index, str(index)) for index in range(min(max(names) + 1, 50_000))]
    return info


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _model_hint(model: Any, inputs: Any) -> str:
    if isinstance(model, type):
        return f"Make one first: {model.__name__}()."
    if isinstance(inputs, nn.Module):
        return "Give the model first, then the inputs."
    return ""
