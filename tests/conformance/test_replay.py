"""Replay on real architectures: hundreds of random changes of each give what the whole model gives.

Asked as every caller asks, through one task; expected is the user's own model under plain hooks.
"""

from __future__ import annotations

import copy
import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnviz_widget import Engine, demo
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError
from tests import models
from tests.conformance.test_architectures import (
    SMALL,
    WORDS,
    Autoencoder,
    GruSeries,
    language_model,
)
from tests.models import UNet, image, seeded, settled, vision

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.jobs import CancelToken

VARIANTS = 200
CHUNK = 50


class Subject(NamedTuple):
    """A model, an input of one sample, and what else the model is given by name."""

    make: Callable[[], nn.Module]
    inputs: Tensor
    more: dict[str, Tensor] = {}  # noqa: RUF012  nobody writes to it


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def _swin() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 16, [2, 2, 2], [2, 2, 2], [7, 7], num_classes=10)


def _deeplab() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)


def _words(name: str, **config: Any) -> Subject:
    return Subject(lambda: language_model(name, {**SMALL, **config}), WORDS)


GPT = {"n_layer": 3, "n_embd": 32, "n_head": 2}
T5 = {"num_layers": 2, "d_model": 32, "d_ff": 64, "num_heads": 2, "d_kv": 16}

SUBJECTS: dict[str, Subject] = {
    "shapes": Subject(lambda: demo.shapes().model, demo.shapes().inputs[:1]),
    "digits": Subject(lambda: demo.digits().model, demo.digits().inputs[:1]),
    **{
        name: Subject(functools.partial(vision, name), image(1, size))
        for name, size in {
            "vgg16": 32,
            "resnet50": 64,
            "densenet121": 64,
            "googlenet": 64,
            "mobilenet_v3_large": 64,
            "efficientnet_b0": 64,
            "convnext_tiny": 64,
        }.items()
    },
    "inception_v3": Subject(functools.partial(vision, "inception_v3"), image(1, 96)),
    "vit": Subject(lambda: seeded(_vit), image(1, 32)),
    "swin": Subject(lambda: seeded(_swin), image(1, 64)),
    "unet": Subject(lambda: seeded(UNet), image(1, 32)),
    "deeplabv3": Subject(lambda: seeded(_deeplab), image(1, 64)),
    "autoencoder": Subject(lambda: seeded(Autoencoder), models.rows(1, 16)),
    "table": Subject(lambda: seeded(models.Mlp), models.rows(1, 6)),
    "gru": Subject(lambda: seeded(GruSeries), torch.randn(1, 24, 3)),
    "unrolled": Subject(lambda: seeded(models.Unrolled), torch.randn(1, 24, 3)),
    "lstm": Subject(lambda: seeded(lambda: models.TinyLstm(packed=False)), torch.randint(0, 20, (1, 7))),
    "bert": _words("bert"),
    "gpt2": Subject(lambda: language_model("gpt2", GPT), WORDS),
    "llama": _words("llama", num_key_value_heads=1),
    "t5": Subject(lambda: language_model("t5", T5), WORDS, {"decoder_input_ids": WORDS[:, :5]}),
}


class Asked:
    """A task about one model, and the same questions put to the user's own model."""

    def __init__(self, task: Task, model: nn.Module, subject: Subject) -> None:
        self.task, self.model, self.subject = task, model, subject

    def expected(self, node: str, changed: Tensor) -> list[Tensor]:
        """Run the model itself on every variant."""
        inputs = self.subject.inputs.expand(len(changed), *self.subject.inputs.shape[1:])
        more = {name: tensor.expand(len(changed), -1) for name, tensor in self.subject.more.items()}
        site = self.task.embedding if node == "input" and self.task.embedded else node
        if site == "input":
            inputs, handles = changed, []
        else:
            path, _, call = site.partition("@")
            calls = iter(range(1000))

            def leave(_: nn.Module, __: Any, output: Any) -> Any:
                if next(calls) != int(call or 0):
                    return None
                return _first_replaced(output, changed.clone())

            handles = [self.model.get_submodule(path).register_forward_hook(leave)]
        try:
            with torch.no_grad():
                return [tensor for _, tensor in tensors_of(self.model(inputs.clone(), **more))]
        finally:
            for handle in handles:
                handle.remove()


def _first_replaced(output: Any, tensor: Tensor) -> Any:
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, tuple):
        return (_first_replaced(output[0], tensor), *output[1:])
    output[next(iter(output))] = tensor
    return output


def _boxes(value: Tensor, generator: np.random.Generator, count: int) -> Tensor:
    """Change a value in a random box of random size, for each variant."""
    changed = value.expand(count, *value.shape[1:]).clone()
    for row in range(count):
        box = []
        for side in value.shape[1:]:
            size = int(generator.integers(1, max(2, side // 2 + 1)))
            begin = int(generator.integers(0, side - size + 1))
            box.append(slice(begin, begin + size))
        changed[row][tuple(box)] += float(generator.normal())
    return changed


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_change_gives_what_the_whole_model_gives(name: str) -> None:
    subject = SUBJECTS[name]
    assert _error(subject, subject.make().eval(), len(name)) <= 1e-5


def test_with_twice_the_digits_a_deep_network_gives_them() -> None:
    model = settled(copy.deepcopy(vision("mobilenet_v3_large")), image(4, 64, seed=1)).double()
    assert _error(Subject(lambda: model, image(1, 64).double()), model, seed=0) <= 1e-10


def _error(subject: Subject, model: nn.Module, seed: int) -> float:
    """Return the largest error of changes in a model, as a share of the largest number."""
    generator = np.random.default_rng(seed)
    with Engine(model) as engine:
        runs = engine._shared_runs()

        def ask(token: CancelToken) -> float:
            with torch.no_grad(), engine._twin.running():
                task = runs.task_of(
                    engine._twin.module, (subject.inputs,), subject.more, token, target=_everything
                )
                return _largest_error(Asked(task, model, subject), generator)

        return engine._call(ask)


def _everything(output: Any) -> Tensor:
    return torch.cat([tensor.flatten(1) for _, tensor in tensors_of(output) if tensor.dim() > 1], 1).sum(1)


def _largest_error(asked: Asked, generator: np.random.Generator) -> float:
    task = asked.task
    replayed = task.replayed("input")
    assert replayed is not None
    plan = replayed.replay.plan
    nodes = [
        site
        for site, ref in plan.refs.items()
        if site in dict(asked.model.named_modules()) and plan.batches.get(ref) == (0, 1) and site
    ]
    largest = 0.0
    for chunk in range(VARIANTS // CHUNK):
        node = "input" if chunk % 2 == 0 else str(generator.choice(nodes))
        value = task.inputs[0] if node == "input" else replayed.replay.base(plan.refs[node])
        if not value.is_floating_point() or value.dim() < 2:
            continue
        changed = _boxes(value, generator, CHUNK)
        rows = torch.zeros(CHUNK, dtype=torch.long)
        _, output = task.replay(replayed, node, [changed], rows)
        for found, expected in zip(
            (tensor for _, tensor in tensors_of(output)), asked.expected(node, changed), strict=True
        ):
            if expected.is_floating_point():
                scale = expected.abs().max().clamp(min=1e-6)
                largest = max(largest, float((found - expected).abs().max() / scale))
    return largest


def _occluded(engine: Engine, x: Tensor, size: int = 4, stride: int = 2) -> Any:
    return engine.attribute(x, "occlusion", target=1, sliding_window_shapes=size, strides=stride)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_result_says_how_much_was_computed(samples: int) -> None:
    x = torch.cat([image(1, 128, seed) for seed in range(samples)])
    model = vision("resnet18")
    with Engine(model) as engine:
        engine.debug = True  # replayed whether that is faster or not
        found = engine.attribute(x, "occlusion", target=1, sliding_window_shapes=16, strides=16)
    assert found.recomputed is not None
    assert 0.3 < found.recomputed.share < 0.9
    assert 0 < found.recomputed.operations <= found.recomputed.total
    assert found.recomputed.note == ""
    assert str(found.recomputed).startswith("recomputed ")
    with Engine(model) as engine:
        assert engine.attribute(x, "saliency", target=1).recomputed is None


def test_who_watches_sees_something_before_a_plan_is_made() -> None:
    x, model = image(1, 128), vision("resnet18")
    ran: list[int] = []
    model.conv1.register_forward_hook(lambda _, __, output: ran.append(len(output)))
    with Engine(model) as engine:
        options = {"target": 1, "sliding_window_shapes": 16, "strides": 8}
        ran.clear()
        stream = engine.stream(x, "occlusion", **options)
        first = next(stream)
        assert first.recomputed is None  # not known yet
        assert sum(ran) <= 2 + 4  # the sample, twice, and the first windows; nothing is recorded for a plan
        *_, last = stream
        found = engine.attribute(x, "occlusion", **options)
    assert last.recomputed is not None
    assert last.recomputed.share < 0.9
    assert torch.allclose(last.values, found.values, rtol=1e-4, atol=1e-5 * float(found.values.abs().max()))


class Deciding(nn.Module):
    """Where to go is decided by the sum of what was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y.relu() if y.sum() > 0 else y.tanh()
        return self.head(y.mean((2, 3)))


class Exporting(Deciding):
    """A value goes to NumPy and comes back."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        return (
            self.head(y.mean((2, 3))) + torch.from_numpy(np.tanh(y.detach().numpy().mean((1, 2, 3))))[:, None]
        )


class Compared(Deciding):
    """Samples of a batch are compared with each other."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head((y - y.mean(0)).relu().mean((2, 3)))


class Noisy(Deciding):
    """Noise is drawn in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) + torch.randn_like(x[:, :1])).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Deciding, "reads a value"), (Exporting, "numpy"), (Compared, "samples"), (Noisy, "random numbers")],
)
def test_what_must_not_be_run_again_is_run_in_full_and_says_why(kind: type[nn.Module], why: str) -> None:
    model, x = seeded(kind), image(1, 16)
    with Engine(model) as engine:
        found = _occluded(engine, x)
    assert found.recomputed is not None
    assert found.recomputed.share == 1
    assert why in found.recomputed.note
    if kind is Deciding:  # against the plain model, one window at a time
        windows = torch.zeros(7, 7)
        with torch.no_grad():
            score = model(x)[0, 1]
            for row in range(7):
                for column in range(7):
                    hidden = x.clone()
                    hidden[..., 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] = 0
                    windows[row, column] = score - model(hidden)[0, 1]
        assert torch.allclose(found.values[0, 0, 0, 0], windows[0, 0], atol=1e-5)
        assert torch.allclose(found.values[0, 0, -1, -1], windows[-1, -1], atol=1e-5)


_calls = itertools.count()


class Moody(nn.Module):
    """Gives something else once it was called often enough: nothing that a recording can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64, 3)
        self.deep = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.deep(self.conv(x).relu()).mean((2, 3)))
        return torch.add(y, y, alpha=float(next(_calls) > 8))


def test_a_mismatch_ends_replay_for_that_model_with_a_warning() -> None:
    with Engine(seeded(Moody)) as engine:
        engine.debug = True
        with pytest.warns(RuntimeWarning, match="in full from here on"):
            found = [_occluded(engine, image(1, 32), 6, 2) for _ in range(4)][-1]
        assert found.recomputed is not None
        assert found.recomputed.share == 1
        assert "did not give" in found.recomputed.note


def test_several_samples_are_replayed_each_from_its_own_run() -> None:
    model, x = vision("resnet18"), torch.cat([image(1, 64, seed) for seed in range(3)])
    with Engine(model) as engine:
        together = _occluded(engine, x, 16, 16).values
        alone = torch.cat([_occluded(engine, one[None], 16, 16).values for one in x])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("budget", [0, 200_000])
def test_with_little_memory_values_are_computed_again(budget: int) -> None:
    model, x = vision("resnet18"), image(1, 64)
    with Engine(model) as engine:
        expected = _occluded(engine, x, 16, 16).values
    with Engine(model) as engine:
        engine.memory_budget = budget
        assert torch.allclose(_occluded(engine, x, 16, 16).values, expected, atol=1e-5)
        held = engine._shared_runs().replays.nbytes
    assert held <= budget


def test_an_intervention_is_run_from_where_it_acts() -> None:
    model, x = vision("resnet18"), image(2, 64)
    with Engine(model) as engine:
        for factor in (0.5, 0.7, 0.2):
            with engine.intervene("layer3", "scale", factor=factor), engine.intervene("layer4.0", channel=3):
                found = engine.output(x)
        replayed = engine._shared_runs().replays.last
        assert replayed is not None
        assert replayed.replay.flops < 0.6 * replayed.replay.whole_flops

    def scaled(*given: Any) -> Tensor:
        return given[2] * 0.2

    def ablated(*given: Any) -> Tensor:
        return torch.cat([given[2][:, :3], torch.zeros_like(given[2][:, 3:4]), given[2][:, 4:]], 1)

    handles = [
        model.get_submodule(path).register_forward_hook(hook)
        for path, hook in (("layer3", scaled), ("layer4.0", ablated))
    ]
    with torch.no_grad():
        expected = model(x)
    for handle in handles:
        handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "attention", "projection"),
    [
        ("gpt2", {"n_embd": 96, "n_layer": 2, "n_head": 24}, "h.1.attn", "h.1.attn.c_proj"),
        (
            "llama",
            {**SMALL, "hidden_size": 96, "num_attention_heads": 24, "num_key_value_heads": 2},
            "layers.1.self_attn",
            "layers.1.self_attn.o_proj",
        ),
    ],
)
def test_heads_are_replayed_from_where_their_projection_reads_them(
    kind: str, config: dict[str, int], attention: str, projection: str
) -> None:
    model, heads = language_model(kind, config), 24  # enough that a replay is planned for them
    paths = [path for path, _ in model.named_modules()]
    attention, projection = (
        next(p for p in paths if p.endswith(end) and p) for end in (attention, projection)
    )

    def score(output: Any) -> Tensor:
        return tensors_of(output)[0][1][:, -1, 3]

    lost = torch.zeros(heads)
    with torch.no_grad():
        before = score(model(WORDS))
        for head in range(heads):

            def without(_: nn.Module, args: tuple[Tensor], head: int = head) -> tuple[Tensor]:
                value = args[0].clone()
                value[..., 4 * head : 4 * head + 4] = 0
                return (value,)

            handle = model.get_submodule(projection).register_forward_pre_hook(without)
            lost[head] = before - score(model(WORDS))
            handle.remove()
    with Engine(model) as engine:
        engine.debug = True
        found = engine.knock_outs(WORDS, attention, heads=True, target=score)
        assert found.recomputed.share < 0.8, str(found.recomputed)
    assert torch.allclose(torch.tensor([found.effect(head) for head in range(heads)]), lost, atol=1e-5)


def test_weights_that_moved_are_seen() -> None:
    model = seeded(lambda: demo.shapes().model)
    x = demo.shapes().inputs[:1]
    with Engine(model) as engine:
        _occluded(engine, x, 16, 8)
        with torch.no_grad():
            next(model.parameters()).mul_(1.5)
        found = _occluded(engine, x, 16, 8).values
    with Engine(model) as engine:
        assert torch.allclose(found, _occluded(engine, x, 16, 8).values, atol=1e-5)


def test_a_box_grows_as_the_receptive_field_says() -> None:
    model, x = vision("vgg16"), image(1, 64)
    with Engine(model) as engine:
        boxes = engine.reach(x, (20, 30, 24, 33))
        trace = engine.trace(x)
        assert boxes["input"][1:] == ((20, 24), (30, 33))
        assert boxes["features.0"][1:] == ((19, 25), (29, 34))
        assert boxes["features.2"][1:] == ((18, 26), (28, 35))
        assert boxes["features.4"][1:] == ((9, 13), (14, 18))
        assert boxes["classifier"] == ((0, 1000),)
        # A unit sees the box exactly where the box reaches it.
        _, rows, columns = boxes["features.9"]
        for y in range(16):
            for column in range(16):
                mask = engine.receptive_field(trace, "features.9", (0, y, column)).mask
                reached = rows[0] <= y < rows[1] and columns[0] <= column < columns[1]
                assert bool(mask[20:24, 30:33].any()) == reached
        with pytest.raises(InputError, match="does not lie inside"):
            engine.reach(x, (60, 60, 70, 64))
    with Engine(seeded(Noisy)) as engine, pytest.raises(InputError, match="random numbers"):
        engine.reach(image(1, 16), (0, 0, 2, 2))
