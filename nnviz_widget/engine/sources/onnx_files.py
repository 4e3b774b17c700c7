"""Models from files in the ONNX format, as modules of torch. Needs the extra ``[onnx]``.

The package ``onnx2torch`` does the conversion. What it does not take, though files are full of it, is
prepared here: weights that stand for each other by way of ``Identity``, and the names of nodes, which
exporters of torch fill with the path of the module.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.sources.scopes import nested
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    import os

    from torch import nn

__all__ = ["load_onnx"]

#: Files in a later version of the operators are brought to this one where they have to be.
_KNOWN_OPSET = 17


def load_onnx(path: str | os.PathLike[str]) -> nn.Module:
    """Return the model in an ONNX file as a module of torch.

    Parameters
    ----------
    path : str or path-like
        Of a file in the ONNX format.

    Returns
    -------
    nn.Module
        In eval mode. Its parts are named and nested as the nodes of the file are: ``layer1.0.conv1``.

    Raises
    ------
    InputError
        There is no such file, it is no ONNX model, or it has an operator that cannot be converted.
    ImportError
        ``onnx`` and ``onnx2torch`` are not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(
            f"There is no file {str(path)!r}.", hint="Give a module, or the path of an .onnx file."
        )
    try:
        import onnx  # noqa: PLC0415  an extra
        import onnx.version_converter  # noqa: PLC0415  an extra
        from onnx2torch import convert  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ImportError(
            "Models in ONNX files need the packages onnx and onnx2torch: pip install 'nnviz_widget[onnx]'."
        ) from error
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except Exception as error:
        raise InputError(f"{str(path)!r} could not be read as an ONNX model: {error}") from error
    try:
        flat = convert(_prepared(model))
    except NotImplementedError as error:
        try:
            flat = convert(_prepared(onnx.version_converter.convert_version(model, _KNOWN_OPSET)))
        except Exception:  # noqa: BLE001  the converter of versions raises what it likes
            raise InputError(
                f"{str(path)!r} has an operator that onnx2torch does not know: {error}.",
                hint="Export it from torch with torch.export instead, or with an older opset_version.",
            ) from error
    return nested(flat, re.sub(r"\W", "_", file.stem))


def _prepared(model: Any) -> Any:
    prepared = type(model)()
    prepared.CopyFrom(model)
    _follow_identities(prepared.graph)
    _clean_names(prepared.graph)
    return prepared


def _follow_identities(graph: Any) -> None:
    """Let every node read what its ``Identity`` read; equal weights are stored once behind these."""
    given = {output.name for output in graph.output}
    passed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.output[0] not in given
    }
    kept = [node for node in graph.node if node.output[0] not in passed]
    for node in kept:
        for index, name in enumerate(node.input):
            while name in passed:
                name = passed[name]  # noqa: PLW2901  along a chain of them
            node.input[index] = name
    del graph.node[:]
    graph.node.extend(kept)


def _clean_names(graph: Any) -> None:
    """Name nodes by the path of their module: ``/layer1/layer1.0/conv1/Conv`` is ``layer1/0/conv1``."""
    scopes = [_scope(node.name) for node in graph.node]
    members: dict[tuple[str, ...], int] = {}
    for scope in scopes:
        for depth in range(1, len(scope)):
            members[scope[:depth]] = members.get(scope[:depth], 0) + 1
    for node, scope in zip(graph.node, scopes, strict=True):
        # A module that is a single operator has no need of a part of its own.
        alone = len(scope) > 1 and members[scope[:-1]] == 1
        node.name = "/".join(scope[:-1] if alone else scope)


def _scope(name: str) -> tuple[str, ...]:
    """Split a node's name into parts; children of a container may repeat its name: ``layer1/layer1.0``."""
    parts: list[str] = []
    before = ""
    for part in name.strip("/").split("/"):
        short = part.removeprefix(f"{before}.") if before else part
        parts += short.split(".") if all(short.split(".")) else [short.replace(".", "_")]
        before = part
    return tuple(parts)
