"""The explorer widget: traits and wiring, nothing is computed here.

An explorer owns an exploration (engine, batch, run) and a session (the wire); it shows what the one
announces and hands the other's requests to the operations. `explore`, which makes it, is in ``explore.py``.

Rules of the transport that decide the wiring:

- Everything published on the comm goes through `Explorer._send`, inside the context of the newest page
  message; sent plainly from a cell, the next click would wait for that cell.
- What Python alone writes is sent explicitly, all of one event in one message: traits are set from the
  engine's thread while a page's message may be handled on another, and traitlets can lose a notification
  between the two.
- A page's message sets off nothing of what belongs to cells: see ``quiet.py``.
- Everything that threads hold of an explorer they hold weakly.
"""

from __future__ import annotations

import logging
import os
import uuid
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets as t

from nnviz_widget.engine.graph_json import pack
from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer import comparing, layers, params, selecting
from nnviz_widget.explorer.drawings import Drawings, SavedDrawing
from nnviz_widget.explorer.operations import Operations
from nnviz_widget.explorer.pulse import Pulse
from nnviz_widget.explorer.quiet import calm, hush
from nnviz_widget.explorer.replies import Question, Reply
from nnviz_widget.explorer.still import CSS, Still
from nnviz_widget.wire.messages import json_safe
from nnviz_widget.wire.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.engine.comparison.result import Comparison
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.statistics import StatisticsFigure
    from nnviz_widget.wire.messages import Buffer

__all__ = ["Explorer", "front_end"]

logger = logging.getLogger("nnviz_widget")

STATIC = Path(__file__).parent.parent / "static"
#: With this, anywidget watches the files and a page takes over every new build.
HOT_RELOAD = os.environ.get("ANYWIDGET_HMR") == "1"
#: Parts of the front end that a page fetches when it first opens them.
PAGES = ("explain", "paint", "influence", "output", "math", "weights", "intervene", "compare")
FROM_PYTHON = ("graph", "info", "status", "run", "epoch")


@cache
def front_end(name: str) -> str:
    """Return the text of a built file. Text and not a path: a path would keep every closed widget alive."""
    path = STATIC / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NNVizError(
            f"The front end is not built: {path} is missing.",
            hint="In a clone of the repository run `make build`, or `npm ci && npm run build`, once.",
        ) from None


def _packed(rows: dict[str, Any], _: Any) -> dict[str, Any]:
    """Write the graph for the page: as rows it is several times as large."""
    if not rows:
        return {}
    packed = pack(rows)
    # Numbers of a graph are Python's own; its texts come from the user's files and names.
    return {**packed, "model": json_safe(packed["model"]), "texts": json_safe(packed["texts"])}


class Explorer(anywidget.AnyWidget):
    """See inside a model: its graph, what every layer makes of the input, and what it looked at.

    Made by `nnviz_widget.explore`. Traits hold small JSON; arrays travel in messages of their own.

    Attributes
    ----------
    graph, info, status, run, epoch
        What the page shows; written by Python alone.
    selection : dict
        ``layer``, ``channel``, ``pixel``, ``sample``, ``class``; written by clicks and by `select`. Observe
        it to follow the user: ``w.observe(function, "selection")``.
    """

    _esm: Any = STATIC / "index.js" if HOT_RELOAD else t.Unicode().tag(sync=True)
    _css: Any = STATIC / "index.css" if HOT_RELOAD else t.Unicode().tag(sync=True)

    # Names the widget to its own page, whose views are handed different model objects.
    _key = t.Unicode().tag(sync=True)
    # No echo: the page never writes these, so there is nothing to confirm.
    graph = t.Dict().tag(sync=True, echo_update=False, to_json=_packed)
    info = t.Dict().tag(sync=True, echo_update=False)
    status = t.Dict().tag(sync=True, echo_update=False)
    run = t.Dict().tag(sync=True, echo_update=False)
    epoch = t.Int(0).tag(sync=True, echo_update=False)
    selection = t.Dict().tag(sync=True)

    def __init__(
        self, exploration: Exploration, info: Mapping[str, Any], *, layer: str | None = None
    ) -> None:
        me = weakref.ref(self)
        self._closed = False
        self._figure: StatisticsFigure | None = None
        self._exploration = exploration
        self._still = Still(f"{info['model']} explored with nnviz_widget")
        operations = Operations(
            exploration,
            {"still": _host_operation(me, "_take_still"), "page": _page},
        )
        drawings = Drawings(lambda message: _call(me, "_post", message))
        self._drawings = drawings
        self._session = Session(
            lambda content, buffers: _call(me, "_send_custom", content, buffers),
            # A drawing is no work for the engine: it is taken while that is busy, or paused.
            lambda exchange: (drawings.take if exchange.request.op == "drawing" else operations.start)(
                exchange
            ),
            on_visible=lambda visible: _call(me, "_see", visible),
        )
        self._pulse = Pulse(lambda: _call(me, "_beat") is True)
        super().__init__(
            _key=uuid.uuid4().hex,
            info=json_safe(dict(info)),
            status={"state": "loading", "stage": "starting"},
            selection=selecting.nothing() | {"layer": layer},
        )
        self.on_msg(_receive)
        exploration.announce = lambda **traits: _call(me, "_announce", traits)
        exploration.start(0)

    def __repr__(self) -> str:
        model, samples = self.info.get("model", "nothing"), self.info.get("samples", 0)
        return f"Explorer({model}, {samples} sample{'' if samples == 1 else 's'})"

    # ---- what the user calls ------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """The run on the screen; waits for the first one.

        Raises
        ------
        NNVizError
            There is none, because the model raised before anything could be recorded.
        """
        return self._exploration.wait()

    @property
    def feature_maps(self) -> NDArray[np.float32] | None:
        """Activation of the selected layer for the sample on the screen.

        Shaped ``[C, H, W]`` for maps, ``[T, D]`` for tokens, ``[D]`` for a vector. None without a layer.
        """
        layer = self.selection["layer"]
        if layer is None:
            return None
        self._exploration.wait()
        return self._exploration.ask(lambda: layers.activation(self._exploration, layer))

    @property
    def saliency(self) -> NDArray[np.float32] | None:
        """Gradient of the selected unit or class on the input, shaped like one sample of it.

        None without a selected pixel, vector entry or class.
        """
        self._exploration.wait()
        return self._exploration.ask(lambda: selecting.gradient(self._exploration, dict(self.selection)))

    @property
    def attributions(self) -> dict[str, Attribution]:
        """The attributions that the page computed, the newest last; named by method, sample and target."""
        return self._exploration.shelf.all()

    @property
    def statistics(self) -> Any:
        """A bqplot figure with the histogram of the selected layer, which follows the selection.

        Show it beside the explorer: ``ipywidgets.VBox([w, w.statistics])``.
        """
        if self._figure is None:
            from nnviz_widget.explorer.statistics import StatisticsFigure  # noqa: PLC0415 - bqplot on demand

            self._figure = StatisticsFigure()
            self.observe(_follow, ["selection", "run"])
            self._draw_statistics()
        return self._figure.figure

    def select(
        self,
        layer: Any = None,
        *,
        channel: int | None = None,
        pixel: tuple[int, int] | None = None,
        sample: int | None = None,
        target: int | str | None = None,
    ) -> None:
        """Do what a click does: select a layer, a channel of it, a unit, a sample, or a class.

        Parameters
        ----------
        layer : str or Module, optional
            Dotted name, node id or module; by default the selected one if a channel or pixel is given.
        channel : int, optional
            Index of a feature map, feature or entry.
        pixel : (int, int), optional
            ``(y, x)`` in that map; the unit whose saliency is shown.
        sample : int, optional
            Puts this sample on the screen (and runs the model on it).
        target : int or str, optional
            Index or name of a class whose saliency is shown.

        Raises
        ------
        InputError
            Something of that does not exist; nothing has changed then.
        """
        self.selection = selecting.choose(
            self._exploration,
            dict(self.selection),
            layer=layer,
            channel=channel,
            pixel=pixel,
            sample=sample,
            target=target,
        )

    @property
    def painted(self) -> NDArray[Any] | None:
        """The input that was painted last, ``[C, H, W]``, as the model takes it; None before that."""
        painted = self._exploration.batch.painted
        return None if painted is None else painted[1][0].cpu().numpy().copy()

    def paint(self, array: Any) -> None:
        """Show an input of your own: as the painted sample, after the others.

        Parameters
        ----------
        array : array or Tensor
            One input as the model takes it, ``[C, H, W]``; or a picture, uint8 ``[H, W, 3]``, which is
            brought into the range of the inputs by undoing `denormalize`.

        Raises
        ------
        InputError
            It does not have the shape of a sample.
        NNVizError
            The model raised; what was on the screen stays.
        """
        self._exploration.wait()
        self._exploration.ask(lambda: self._exploration.paint(array))
        self.selection = {**self.selection, "sample": self._exploration.sample}

    def compare_with(
        self,
        *,
        inputs: Any = None,
        model: Any = None,
        state_dict: Any = None,
        sample: int | None = None,
        name: str | None = None,
    ) -> None:
        """Set something beside the sample on the screen, and open the page that compares the two.

        Parameters
        ----------
        inputs : tensor, array, list, tuple or dict, optional
            Other inputs: one for each sample (a noisy copy of the batch, an adversarial one), or one for all.
        model : Module, optional
            Another model, which is run on the same sample. Not changed.
        state_dict : dict of str to Tensor, optional
            Another checkpoint of this model; it is loaded into a private copy.
        sample : int, optional
            Another sample of the batch; the page can pick it as well.
        name : str, optional
            What the page calls it.

        Raises
        ------
        InputError
            Not exactly one of these was given, or it does not fit; nothing has changed then.
        """
        self._exploration.wait()
        told = self._exploration.ask(
            lambda: comparing.choose(
                self._exploration,
                inputs=inputs,
                model=model,
                state_dict=state_dict,
                sample=sample,
                name=name,
            )
        )
        self._announce({"info": {"compare": told}})

    @property
    def comparison(self) -> Comparison:
        """The comparison of the sample on the screen with what was set beside it, or picked on the page.

        How alike every layer is, difference maps and both predictions; see `nnviz_widget.Engine.compare`.

        Raises
        ------
        InputError
            Nothing was set beside it yet.
        """
        self._exploration.wait()
        return self._exploration.ask(lambda: comparing.whole(self._exploration))

    def measure(self, what: str) -> dict[str, float | None]:
        """Return one number for every layer, operation and group of the run on the screen.

        What the graph can be coloured by: ``params``, ``flops``, ``bytes``, ``time`` (seconds), ``mean`` or
        ``dead``; see `nnviz_widget.Engine.measure`. By node and group id; None where nothing is known.
        """
        return self._exploration.engine.measure(self._exploration.wait(), what)

    def save_drawing(self, path: str | os.PathLike[str], *, whole: bool = False) -> SavedDrawing:
        """Save the drawing of the graph as the page shows it, as an SVG or a PNG.

        The page draws, so one has to show the explorer. In JupyterLab the file is there when this returns;
        where pages are not heard while a cell runs, it is written right after the cell.

        Parameters
        ----------
        path : str or path-like
            File to write; ends in ``.svg`` or ``.png``.
        whole : bool
            The whole drawing, also what is out of sight, instead of the pane as it stands.

        Returns
        -------
        SavedDrawing
            Stands for the path; ``done`` says whether the file is there, ``wait()`` waits for it.

        Raises
        ------
        InputError
            The file has another ending, or there is no such folder.
        NNVizError
            No page shows the explorer, or it could not draw.
        """
        return self._drawings.save(path, whole=whole)

    def refresh(self) -> None:
        """Run the model now, with the weights as they are, and show that.

        Called inside a training loop it is a consistent moment: the loop waits for it.

        Raises
        ------
        NNVizError
            The model raised; what was on the screen stays.
        """
        self._exploration.ask(lambda: self._exploration.run(self._exploration.sample))

    def paused(self) -> AbstractContextManager[None]:
        """Hold the engine still: inside ``with w.paused():`` no click computes anything; it waits."""
        return self._exploration.engine.paused()

    def close(self) -> None:
        """Cancel everything, end the threads, free the memory, and close the view. Safe to call twice."""
        if getattr(self, "_closed", True):
            return
        self._closed = True
        self._pulse.stop(wait=True)
        self._session.close()
        self._exploration.close()
        self._still.forget()
        if self._figure is not None:
            self.unobserve(_follow, ["selection", "run"])
            self._figure.close()
        self.layout.close()
        super().close()

    # ---- display ------------------------------------------------------------------------------------------

    def _ipython_display_(self, **kwargs: Any) -> None:
        bundle = self._repr_mimebundle_(**kwargs) if not self._closed else None
        data, metadata = bundle if bundle is not None else ({"text/plain": repr(self)}, {})
        if not self._still.show(data, metadata):
            from IPython.display import display  # noqa: PLC0415 - whoever calls this has it

            display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]

    @t.default("_esm")
    def _default_esm(self) -> str:
        return front_end("index.js")

    @t.default("_css")
    def _default_css(self) -> str:
        return front_end("index.css") + CSS

    # ---- to and from the page -----------------------------------------------------------------------------

    @t.observe("comm")
    def _hush(self, change: Mapping[str, Any]) -> None:
        if change["new"] is not None:
            hush(change["new"], self._handle_msg)
            calm(change["new"])

    @t.validate("selection")
    def _clean_selection(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        return selecting.clean(proposal["value"], self._exploration.batch.total)

    def open(self) -> None:
        """Open the comm; called by ipywidgets."""
        super().open()
        _let_headers_decide(self.comm)

    def _send(self, msg: Any, buffers: Any = None) -> None:
        """Publish on the comm: every state, every reply, every echo comes through here."""
        self._session.run(super()._send, msg, buffers=buffers)
        _let_headers_decide(self.comm)

    def _send_custom(self, content: dict[str, Any], buffers: list[Buffer]) -> None:
        self.send(content, buffers or None)

    def _post(self, message: dict[str, Any]) -> None:
        self._session.post(message)

    def notify_change(self, change: t.Bunch) -> None:
        """Tell observers; what Python alone writes is sent by `_announce`, not trait by trait."""
        if change["name"] in FROM_PYTHON:
            t.HasTraits.notify_change(self, change)
        else:
            super().notify_change(change)

    def _announce(self, traits: dict[str, Any]) -> None:
        if self._closed:
            return
        fresh = {name: value if name == "graph" else json_safe(value) for name, value in traits.items()}
        if "info" in fresh:
            fresh["info"] = {**self.info, **fresh["info"]}
        for name, value in fresh.items():
            self._tell(name, value)
        # What `send_state` does, without its search for buffers in every list of the graph: there are none.
        self._send({"method": "update", "state": self.get_state(key=list(fresh)), "buffer_paths": []})

    def _tell(self, name: str, value: Any) -> None:
        """Set a trait; an error in somebody's observer must not end the run that it heard of."""
        try:
            setattr(self, name, value)
        except Exception:
            logger.exception("an observer of %r failed", name)

    def _see(self, visible: bool) -> None:
        if visible and not self._closed:
            self._exploration.poll()
            self._pulse.start()
        else:
            self._pulse.stop()

    def _beat(self) -> bool:
        self._session.tick()
        self._exploration.poll()
        return not self._closed

    # ---- operations that need the widget ------------------------------------------------------------------

    def _take_still(self, question: Question) -> Reply:
        if len(question.buffers) != 1:
            raise InputError("'still' needs one buffer, the picture.")
        try:
            self._still.update(question.buffers[0])
        except ValueError as error:
            raise InputError(str(error)) from None
        return Reply()

    def _draw_statistics(self) -> None:
        me, layer, channel = weakref.ref(self), self.selection["layer"], self.selection["channel"]
        if layer is not None:
            self._exploration.later(lambda: _call(me, "_show_statistics", layer, channel), slot="statistics")

    def _show_statistics(self, layer: str, channel: int | None) -> None:
        if self._figure is None or self._closed:
            return
        stats = layers.statistics(self._exploration, layer, channel)
        self._figure.show(layer if channel is None else f"{layer} · {channel}", stats)


# ---- what others hold of an explorer: these functions and a weak reference ---------------------------------


def _call(me: weakref.ref[Explorer], method: str, *args: Any) -> Any:
    """Call a method of an explorer that may be gone."""
    explorer = me()
    return None if explorer is None else getattr(explorer, method)(*args)


def _host_operation(me: weakref.ref[Explorer], method: str) -> Any:
    def operation(_exploration: Exploration, question: Question) -> Reply:
        return _call(me, method, question) or Reply()

    return operation


def _page(_exploration: Exploration, question: Question) -> Reply:
    """Hand out the front end's part that opens when it is asked for."""
    name = params.choice(question.p, "name", PAGES)
    texts = {kind: front_end(f"{name}.{kind}").encode() for kind in ("js", "css")}
    return Reply({kind: np.frombuffer(text, np.uint8) for kind, text in texts.items()})


def _receive(widget: Explorer, content: Any, buffers: Any) -> None:
    widget._drawings.hear()
    widget._session.receive(content, buffers)


def _follow(change: t.Bunch) -> None:
    change["owner"]._draw_statistics()


def _let_headers_decide(comm: Any) -> None:
    """Make ipykernel 7.4 route the page's next message by the message's own header, as 7.3 did.

    It remembers on the comm from which thread something was last published, and sends the next message
    there. Before the first message of a page there is no context of a page to publish in, so a cell that
    explores and then trains would hold back all clicks until it ends; and a page that went away leaves the
    name of a dead thread behind.
    """
    getattr(comm, "__dict__", {}).pop("_reply_subshell_id", None)
