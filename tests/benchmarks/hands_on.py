"""Changing a run: an intervention to its bars on the page, knock-outs and patches against plain loops.

The floor of an intervention is one forward with a plain hook in the same kernel, by the kernel's clock; the
product's time is the page's, from the click on a switch until the bars of the other network are there. The
peers of the ranking and of the heat map are what people write: a loop that hangs a hook, runs the model under
``torch.no_grad()`` and takes the hook down. What both find is compared, and the largest difference noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import nnviz_widget as nnviz
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.models import GPT2, resnet18
from tests.benchmarks.session import arm, elapsed, lab_session, settle
from tests.browser.explorer_page import SHAPES, ExplorerPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from tests.browser.lab import Lab

THREADS = 2
#: A text for the twelve blocks of GPT-2 small, half as wide, so that a plain loop ends in seconds.
TOKENS, WORDS, WIDTH, HEADS = 6, 8192, 384, 6

RESNET = """
    import torch
    import nnviz_widget as nnviz
    from tests.benchmarks.models import resnet18
    x = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    demo = nnviz.demo.Demo(resnet18().eval(), x, None, None, None, None)
    w = nnviz.explore(demo.model, x)
    w
"""
HOOKED = """
    import copy
    import time

    if "plain" not in globals():  # a hook on the model itself would be a change that the explorer follows
        plain = copy.deepcopy(demo.model)

    def hooked(layer):
        '''Seconds of a forward with a plain hook that ablates a channel.'''
        def zero(module, inputs, output):
            output = output.clone()
            output[:, 3] = 0
            return output
        start = time.perf_counter()
        handle = plain.get_submodule(layer).register_forward_hook(zero)
        with torch.no_grad():
            plain(demo.inputs[:1]).softmax(1)
        handle.remove()
        return time.perf_counter() - start
"""
PAGES = {"shapes": (SHAPES, "stage3.1.conv2"), "ResNet-18": (RESNET, "layer3.1.conv2")}


def run(rounds: int | None = None) -> Report:
    """Measure the page, then rankings, then the heat map."""
    torch.set_num_threads(THREADS)
    report = Report("hands_on")
    with lab_session() as lab:
        for name, (cell, layer) in PAGES.items():
            report.add(switched(lab, name, cell, layer, rounds or 15))
    for name, (model, row, layer) in networks().items():
        report.add(ranked(name, model, row, layer, rounds or (2 if name == "ResNet-18" else 20)))
    report.add(patched(rounds or 2))
    return report


def switched(lab: Lab, name: str, cell: str, layer: str, rounds: int) -> Case:
    """Switch an ablated channel on and off in the page."""
    notebook = lab.open([cell])
    notebook.run(0)
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    notebook.python(f"w.select({layer!r}, channel=3)")
    explorer.root.get_by_role("tab", name="Change").click()
    explorer.root.locator('.nn-change-kinds [data-kind="ablate"]').click()
    box = explorer.root.locator(".nn-shelf li input[type=checkbox]")
    box.wait_for()
    on = True

    def switch() -> float:
        nonlocal on
        on = not on
        settle(lab)
        arm(lab.page, f'.nn-change-bars[data-on="{int(on)}"]')
        box.click()
        return elapsed(lab.page)

    def forward() -> float:
        settle(lab)
        return float(notebook.python(f"hooked({layer!r})", setup=HOOKED))

    times = interleave({"bars painted": switch, "hooked forward": forward}, rounds=rounds)
    notebook.close()
    return Case(f"{name}, a channel of {layer} switched", "bars painted", "hooked forward", times)


def networks() -> dict[str, tuple[nn.Module, Tensor, str]]:
    """Return models, one input of each, and the layer whose channels are knocked out."""
    shapes, digits = nnviz.demo.shapes(), nnviz.demo.digits()
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return {
        "digits": (digits.model, digits.inputs[:1], "features.conv3"),
        "shapes": (shapes.model, shapes.inputs[:1], "stage3.1.conv2"),
        "shapes, early": (shapes.model, shapes.inputs[:1], "stem.conv"),
        "ResNet-18": (resnet18().eval(), picture, "layer4"),
    }


def ranked(name: str, model: nn.Module, row: Tensor, layer: str, rounds: int) -> Case:
    """Rank the channels of a layer by what the best class loses without each."""
    target = int(model(row).argmax())
    found: dict[str, Tensor] = {}
    with nnviz.Engine(model) as engine:

        def product() -> None:
            knocked = engine.knock_outs(row, layer, target=target)
            found["engine"] = knocked.effects[knocked.channels.argsort()]

        def loop() -> None:
            found["plain loop"] = lost_in_a_loop(model, row, layer, target)

        times = interleave({"engine": product, "plain loop": loop}, rounds=rounds, warmup=1)
    channels = len(found["engine"])
    notes = {"largest difference": float((found["engine"] - found["plain loop"]).abs().max())}
    aim = ">= 3" if name in ("digits", "shapes") else ""
    title = f"{name}, knock-outs of {channels} channels of {layer}"
    return Case(title, "engine", "plain loop", times, aim=aim, inverse=True, notes=notes)


@torch.no_grad()
def lost_in_a_loop(model: nn.Module, row: Tensor, layer: str, target: int) -> Tensor:
    """Return by how much the logit falls without each channel."""
    module = model.get_submodule(layer)
    shape: list[int] = []
    handle = module.register_forward_hook(lambda _, __, out: shape.extend(out.shape))
    before = float(model(row)[0, target])
    handle.remove()
    lost = []
    for channel in range(shape[1]):

        def zero(_: object, __: object, out: Tensor, channel: int = channel) -> Tensor:
            out = out.clone()
            out[:, channel] = 0
            return out

        handle = module.register_forward_hook(zero)
        lost.append(before - float(model(row)[0, target]))
        handle.remove()
    return torch.tensor(lost)


def patched(rounds: int) -> Case:
    """Patch every position of every block of a transformer, on a short text."""
    model = GPT2(WIDTH, heads=HEADS, vocabulary=WORDS).eval()
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(WORDS, (1, TOKENS), generator=generator)
    corrupted = clean.clone()
    corrupted[0, [4, -1]] = 11
    blocks = [f"h.{i}" for i in range(12)]
    yes, no = (int(model(x)[0, -1].argmax()) for x in (clean, corrupted))
    found: dict[str, Tensor] = {}

    def score(output: Any) -> Tensor:
        return output[:, -1, yes] - output[:, -1, no] if yes != no else output[:, -1, yes]

    with nnviz.Engine(model) as engine:

        def product() -> None:
            effects = engine.patch_effects(clean, corrupted, layers=blocks, each="position", target=score)
            found["engine"] = effects.matrix()

        def loop() -> None:
            found["plain loop"] = patched_in_a_loop(model, clean, corrupted, blocks, score)

        times = interleave({"engine": product, "plain loop": loop}, rounds=rounds, warmup=1)
    notes = {"largest difference": float((found["engine"] - found["plain loop"]).abs().max())}
    title = f"transformer of width {WIDTH}, patch heat map of {len(blocks)} blocks x {TOKENS} positions"
    return Case(title, "engine", "plain loop", times, inverse=True, notes=notes)


@torch.no_grad()
def patched_in_a_loop(
    model: nn.Module,
    clean: Tensor,
    corrupted: Tensor,
    blocks: list[str],
    score: Callable[[Any], Tensor],
) -> Tensor:
    """Return how far each patch brings the clean score back, ``[blocks, positions]``."""
    kept: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(block).register_forward_hook(
            lambda _, __, out, block=block: kept.__setitem__(block, out.clone())
        )
        for block in blocks
    ]
    high = float(score(model(clean)))
    for handle in handles:
        handle.remove()
    low = float(score(model(corrupted)))
    effects = torch.zeros(len(blocks), clean.shape[1])
    for at, block in enumerate(blocks):
        for position in range(clean.shape[1]):

            def patch(_: object, __: object, out: Tensor, block: str = block, at: int = position) -> Tensor:
                out = out.clone()
                out[:, at] = kept[block][:, at]
                return out

            handle = model.get_submodule(block).register_forward_hook(patch)
            effects[at, position] = (float(score(model(corrupted))) - low) / (high - low)
            handle.remove()
    return effects
