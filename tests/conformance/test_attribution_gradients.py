"""Gradients and paths equal Captum's, a plain float64 run of their definitions, and what is known exactly."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import captum.attr as captum
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.errors import InputError
from tests.conformance.test_harmless import Careless, everything, trained
from tests.explained import NAMES, Case, apart, case
from tests.models import Mlp, TinyLstm, image, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

PATIENCE = 60
#: Every method of the two families, with options that keep it short.
METHODS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "input_x_gradient": {},
    "smooth_grad": {"nt_samples": 6},
    "smooth_grad_squared": {"nt_samples": 6},
    "var_grad": {"nt_samples": 6},
    "integrated_gradients": {"n_steps": 8},
    "expected_gradients": {"n_samples": 12},
    "gradient_shap": {"n_samples": 12, "stdevs": 0.1},
}
SAMPLED = [name for name, options in METHODS.items() if options]
PATHS = ["integrated_gradients", "expected_gradients", "gradient_shap"]


def given(inputs: tuple[Tensor, ...]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs


def tuple_of(tensors: Any) -> tuple[Tensor, ...]:
    return tensors if isinstance(tensors, tuple) else (tensors,)


def same(found: Any, expected: Any, tolerance: float) -> bool:
    pairs = zip(tuple_of(found), tuple_of(expected), strict=True)
    return all(apart(a, b) <= tolerance for a, b in pairs)


# -- the same, written out slowly ---------------------------------------------------------------------------


def gradient(c: Case, inputs: tuple[Tensor, ...], row: int) -> tuple[Tensor, ...]:
    """The gradient at one point, without its batch axis."""
    leaves = [x[None].clone().requires_grad_() for x in inputs]
    score = c.model(*leaves)[0, c.target]
    return tuple(g[0] for g in torch.autograd.grad(score, leaves))


def mean(parts: Iterator[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(column).mean(0) for column in zip(*parts, strict=True))


def stacked(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(column) for column in zip(*parts, strict=True))


def by_definition(method: str, c: Case, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """The attribution of each sample, one gradient after another."""
    samples = len(c.inputs[0])
    points = [tuple(x[row] for x in c.inputs) for row in range(samples)]
    if method == "saliency":
        return stacked([gradient(c, point, 0) for point in points])
    if method == "input_x_gradient":
        return stacked(
            [tuple(x * g for x, g in zip(point, gradient(c, point, 0), strict=True)) for point in points]
        )
    if method == "integrated_gradients":
        count = options["n_steps"]
        if options["quadrature"] == "midpoint":
            alphas, weights = (np.arange(count) + 0.5) / count, np.ones(count) / count
        else:
            nodes, halves = np.polynomial.legendre.leggauss(count)
            alphas, weights = (nodes + 1) / 2, halves / 2
        start = options["baselines"]
        found = []
        for point in points:
            ways = tuple(x - start for x in point)
            steps = [
                tuple(w * g for g in gradient(c, tuple(start + a * way for way in ways), 0))
                for a, w in zip(alphas, weights, strict=True)
            ]
            found.append(
                tuple(way * sum(column) for way, column in zip(ways, zip(*steps, strict=True), strict=True))
            )
        return stacked(found)
    # Noise as it is drawn: copy by copy, sample by sample, input by input, in float32 on the CPU.
    generator = torch.Generator().manual_seed(options["seed"])
    gradients: list[list[tuple[Tensor, ...]]] = [[] for _ in points]
    for _ in range(options["nt_samples"]):
        for row, point in enumerate(points):
            noisy = tuple(
                x + options["stdevs"] * (x.max() - x.min()) * torch.randn(x.shape, generator=generator).to(x)
                for x in point
            )
            gradients[row].append(gradient(c, noisy, row))
    made = []
    for copies in gradients:
        columns = [torch.stack(column) for column in zip(*copies, strict=True)]
        if method == "smooth_grad":
            made.append(tuple(column.mean(0) for column in columns))
        elif method == "smooth_grad_squared":
            made.append(tuple(column.square().mean(0) for column in columns))
        else:
            made.append(tuple(column.var(0, unbiased=False) for column in columns))
    return stacked(made)


FULL: dict[str, dict[str, Any]] = {
    "saliency": {},
    "input_x_gradient": {},
    "integrated_gradients": {"n_steps": 10, "quadrature": "gausslegendre", "baselines": 0.2},
    "smooth_grad": {"nt_samples": 5, "stdevs": 0.1, "seed": 3},
    "smooth_grad_squared": {"nt_samples": 5, "stdevs": 0.1, "seed": 3},
    "var_grad": {"nt_samples": 5, "stdevs": 0.1, "seed": 3},
}


@pytest.mark.parametrize("method", FULL)
@pytest.mark.parametrize("name", NAMES)
def test_in_float64_every_method_is_its_definition(name: str, method: str) -> None:
    c = case(name).double()
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, method, target=c.target, **FULL[method])
    assert all(values.dtype == torch.float64 for values in found.tensors)
    assert same(found.values, by_definition(method, c, FULL[method]), 1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_as_good_as_float32_can_be(name: str) -> None:
    c, exact = case(name), case(name).double()
    for method in ("saliency", "integrated_gradients"):
        options = {**FULL[method], "quadrature": "midpoint"} if FULL[method] else {}
        with Engine(c.model) as engine:
            found = engine.attribute(c.inputs, method, target=c.target, **options)
        assert all(values.dtype == torch.float32 for values in found.tensors)
        assert same(found.values, by_definition(method, exact, options), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_integrated_gradients_equal_captums(name: str) -> None:
    c = case(name)
    inputs, target = given(c.inputs), c.target
    starts = tuple(torch.full_like(x, 0.1) for x in c.inputs)
    expected, delta = captum.IntegratedGradients(c.model).attribute(
        inputs, given(starts), target=target, n_steps=50, return_convergence_delta=True
    )
    with Engine(c.model) as engine:
        saliency = engine.attribute(c.inputs, "saliency", target=target)
        product = engine.attribute(c.inputs, "input_x_gradient", target=target)
        path = engine.attribute(
            c.inputs,
            "integrated_gradients",
            target=target,
            baselines=starts,
            n_steps=50,
            quadrature="gausslegendre",
        )
    assert same(saliency.values, captum.Saliency(c.model).attribute(inputs, target=target, abs=False), 1e-5)
    assert same(product.values, captum.InputXGradient(c.model).attribute(inputs, target=target), 1e-5)
    assert same(path.values, expected, 1e-5)
    assert torch.allclose(path.delta, delta, atol=1e-5)


# -- what is known exactly ----------------------------------------------------------------------------------


class Toy(nn.Module):
    """The network of Captum's README."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.relu, self.lin2 = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)
        with torch.no_grad():
            self.lin1.weight.copy_(torch.arange(-4.0, 5.0).view(3, 3))
            self.lin1.bias.zero_()
            self.lin2.weight.copy_(torch.arange(-3.0, 3.0).view(2, 3))
            self.lin2.bias.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.relu(self.lin1(x)))


def test_the_numbers_in_captums_readme() -> None:
    torch.manual_seed(123)
    x = torch.rand(2, 3)
    printed = torch.tensor([[-0.5922, -1.5497, -1.0067], [0.0, -0.2219, -5.1991]])
    with Engine(Toy().eval()) as engine:
        for quadrature in ("midpoint", "gausslegendre"):
            found = engine.attribute(x, "integrated_gradients", target=0, baselines=0, quadrature=quadrature)
            assert (found.values - printed).abs().max() <= 5.1e-5
            assert found.delta.abs().max() <= 1e-5


def test_of_a_linear_model_every_method_knows_the_weights() -> None:
    model = nn.Linear(7, 3).double()
    weight = model.weight[2].detach()
    x, start = torch.randn(4, 7).double(), torch.randn(7).double()
    with Engine(model) as engine:

        def ask(method: str, **options: Any) -> Tensor:
            return engine.attribute(x, method, target=2, **options).values

        assert apart(ask("saliency"), weight.expand(4, 7)) <= 1e-12
        assert apart(ask("smooth_grad"), weight.expand(4, 7)) <= 1e-12
        assert apart(ask("smooth_grad_squared"), weight.square().expand(4, 7)) <= 1e-12
        assert ask("var_grad").abs().max() <= 1e-12
        assert apart(ask("input_x_gradient"), weight * x) <= 1e-12
        for quadrature in ("midpoint", "gausslegendre"):
            for steps in (1, 7, 50):
                path = ask("integrated_gradients", baselines=start, n_steps=steps, quadrature=quadrature)
                assert apart(path, weight * (x - start)) <= 1e-12
        assert apart(ask("gradient_shap", baselines=start), weight * (x - start)) <= 1e-12
        assert apart(ask("expected_gradients", baselines=start), weight * (x - start)) <= 1e-12


def test_integrated_gradients_share_a_product_evenly() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.prod(1, keepdim=True)

    with Engine(Product()) as engine:
        found = engine.attribute(torch.tensor([[3.0, 5.0]]), "integrated_gradients", target=0)
    assert torch.allclose(found.values, torch.tensor([[7.5, 7.5]]))


def test_without_biases_a_path_from_zero_is_input_times_gradient() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, bias=False),
            nn.ReLU(), nn.Flatten(), nn.Linear(200, 4, bias=False),
        )
    )  # fmt: skip
    with Engine(model) as engine:
        path = engine.attribute(image(2, 16), "integrated_gradients", target=1)
        product = engine.attribute(image(2, 16), "input_x_gradient", target=1)
    assert apart(path.values, product.values) <= 1e-5


# -- completeness and errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_delta_is_what_the_values_lack_of_the_change(name: str) -> None:
    c = case(name).double()
    start = 0.1
    with torch.no_grad():
        ends = [c.model(*inputs)[:, c.target] for inputs in (c.inputs, [x * 0 + start for x in c.inputs])]
    change = ends[0] - ends[1]
    with Engine(c.model) as engine:
        for part in engine.stream(
            c.inputs, "integrated_gradients", target=c.target, baselines=start, n_steps=8
        ):
            summed = sum(values.flatten(1).sum(1) for values in part.tensors)
            assert torch.allclose(part.delta, summed - change, atol=1e-6)
        for method in ("expected_gradients", "gradient_shap"):
            found = engine.attribute(
                c.inputs, method, target=c.target, baselines=start, n_samples=5, stdevs=0.0
            )
            summed = sum(values.flatten(1).sum(1) for values in found.tensors)
            assert torch.allclose(found.delta, summed - change, atol=1e-6)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_fifty_steps_are_complete_to_one_percent_on_a_trained_network(baseline: str) -> None:
    from nnviz_widget import demo

    shapes = demo.shapes()
    x = shapes.inputs[:10]
    with Engine(shapes.model) as engine:
        found = engine.attribute(x, "integrated_gradients", baselines=baseline, n_steps=50)
        change = found.tensors[0].flatten(1).sum(1) - found.delta
    assert float((found.delta / change).abs().median()) <= 1e-2


def test_expected_gradients_are_the_mean_over_baselines_within_their_error() -> None:
    model = seeded(Mlp).double()
    x, pool = rows(2, 6).double(), rows(5, 6, seed=1).double()
    with Engine(model) as engine:
        exact = torch.stack(
            [
                engine.attribute(x, "integrated_gradients", target=1, baselines=start, n_steps=800).values
                for start in pool
            ]
        ).mean(0)
        few = engine.attribute(x, "expected_gradients", target=1, baselines=pool, n_samples=400)
        many = engine.attribute(x, "expected_gradients", target=1, baselines=pool, n_samples=6400)
    for found in (few, many):
        z = ((found.values - exact) / found.stderr).square().mean().sqrt()
        assert 0.4 < z < 1.8
    assert 0.15 < float((many.stderr / few.stderr).mean()) < 0.4


def test_smooth_gradients_tell_their_error() -> None:
    c = case("vgg")
    with Engine(c.model) as engine:
        few = engine.attribute(c.inputs, "smooth_grad", target=1, nt_samples=30, seed=1)
        many = engine.attribute(c.inputs, "smooth_grad", target=1, nt_samples=1500)
    z = ((few.values - many.values) / few.stderr.clamp(min=1e-9)).square().mean().sqrt()
    assert 0.7 < z < 1.4


def test_the_same_baseline_for_gradient_shap_is_captums() -> None:
    c = case("two_inputs")
    starts = tuple(torch.full_like(x, 0.3) for x in c.inputs)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  Captum draws from it
    expected = captum.GradientShap(c.model).attribute(c.inputs, starts, target=1, n_samples=3000, stdevs=0.0)
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "gradient_shap", target=1, baselines=starts, n_samples=3000)
    assert same(found.values, expected, 0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_gathered_in_float32_and_says_so(dtype: torch.dtype) -> None:
    c = case("vgg")
    exact = case("vgg").double()
    import copy

    model = copy.deepcopy(c.model).to(dtype)
    inputs = tuple(x.to(dtype) for x in c.inputs)
    with Engine(model) as engine:
        found = engine.attribute(inputs, "integrated_gradients", target=1)
    with Engine(exact.model) as engine:
        expected = engine.attribute(exact.inputs, "integrated_gradients", target=1)
    assert found.values.dtype == torch.float32
    cosine = nn.functional.cosine_similarity(
        found.values.double().flatten(), expected.values.flatten(), dim=0
    )
    assert cosine >= 0.998
    assert any("bit" in caution or "precision" in caution for caution in found.cautions)


# -- targets ------------------------------------------------------------------------------------------------


class Maps(nn.Module):
    """Scores of three classes at each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(x).tanh()}


def of_score(model: nn.Module, x: Tensor, score: Callable[[Any], Tensor]) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(score(model(leaf)).sum(), leaf)[0]


@pytest.mark.parametrize(
    ("target", "score"),
    [
        (2, lambda out: out[:, 2]),
        (torch.tensor(2), lambda out: out[:, 2]),
        ([0, 2, 1], lambda out: out[[0, 1, 2], [0, 2, 1]]),
        (torch.tensor([0, 2, 1]), lambda out: out[[0, 1, 2], [0, 2, 1]]),
        ([(0,), (2,), (1,)], lambda out: out[[0, 1, 2], [0, 2, 1]]),
        (lambda out: out[:, 0] - out[:, 1], lambda out: out[:, 0] - out[:, 1]),
        (lambda out: (out**2).sum(1, keepdim=True), lambda out: (out**2).sum(1)),
        (None, lambda out: out.max(1).values),
    ],
)
def test_targets_of_classes(target: Any, score: Callable[[Tensor], Tensor]) -> None:
    model, x = seeded(Mlp), rows(3, 6)
    with Engine(model) as engine:
        found = engine.attribute(x, "saliency", target=target)
        path = engine.attribute(x, "integrated_gradients", target=target, n_steps=4)
    assert apart(found.values, of_score(model, x, score)) <= 1e-6
    assert path.values.shape == x.shape
    if target is None:
        assert found.target == model(x).argmax(1).tolist()


def test_without_a_target_the_class_stays_the_one_of_the_unchanged_sample() -> None:
    model, x = seeded(Mlp), rows(3, 6)
    classes = model(x).argmax(1).tolist()
    with Engine(model) as engine:
        for method, options in METHODS.items():
            implied = engine.attribute(x, method, **options)
            told = engine.attribute(x, method, target=classes, **options)
            assert apart(implied.values, told.values) <= 1e-5
            assert implied.target == classes


@pytest.mark.parametrize("target", [(1, 2, 3), [(1, 2, 3), (0, 5, 5)]])
def test_a_pixel_of_a_segmentation(target: Any) -> None:
    model, x = seeded(Maps), image(2, 8)
    each = target if isinstance(target, list) else [target] * 2
    with Engine(model) as engine:
        found = engine.attribute(x, "saliency", target=target)
    expected = of_score(
        model, x, lambda out: torch.stack([out["out"][(i, *at)] for i, at in enumerate(each)])
    )
    assert apart(found.values, expected) <= 1e-6


def test_a_word_at_a_position() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 5)
            self.mix = nn.LSTM(5, 6, batch_first=True)
            self.words = nn.Linear(6, 11)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.words(self.mix(self.embed(tokens))[0])

    model = seeded(Words)
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    with Engine(model) as engine:
        found = engine.attribute(tokens, "saliency", target=(2, 9))
        with pytest.raises(InputError, match="say which number"):
            engine.attribute(tokens, "saliency")
    leaf = model.embed(tokens).detach().requires_grad_()
    score = model.words(model.mix(leaf)[0])[:, 2, 9].sum()
    assert apart(found.values, torch.autograd.grad(score, leaf)[0]) <= 1e-6
    assert found.values[:, 3].abs().max() == 0  # what comes later says nothing


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (3, "outside"),
        (-1, "outside"),
        ((0, 1), "numbers?"),
        ([0, 1], "2 entries for 3"),
        (1.5, "no class"),
        (True, "no class"),
        ("cat", "no class"),
        (lambda out: out, "one number per row"),
        (lambda out: out.argmax(1), "no gradient"),
        (lambda out: 5, "one number per row"),
    ],
)
def test_targets_that_are_none(target: Any, words: str) -> None:
    with Engine(seeded(Mlp)) as engine, pytest.raises(InputError, match=words):
        engine.attribute(rows(3, 6), "saliency", target=target)


def test_what_no_gradient_reaches_says_so() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    with Engine(Rounded()) as engine, pytest.raises(InputError, match="No gradient"):
        engine.attribute(rows(2, 4), "saliency", target=0)


# -- inputs -------------------------------------------------------------------------------------------------


def test_inputs_by_position_by_name_and_with_more_that_is_not_explained() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, a: Tensor, b: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
            mixed = (self.a(a) + self.b(b)).tanh() * scale
            return mixed if mask is None else mixed * mask

    model = seeded(Mixed)
    a, b, mask = rows(3, 4), rows(3, 2, seed=1), torch.rand(3, 3)
    leaves = a.clone().requires_grad_(), b.clone().requires_grad_()
    expected = torch.autograd.grad(model(*leaves, 2.0, mask)[:, 1].sum(), leaves)
    with Engine(model) as engine:
        for inputs in ((a, b), [a, b], {"a": a, "b": b}):
            if isinstance(inputs, dict):
                found = engine.attribute({**inputs, "scale": 2.0, "mask": mask}, "saliency", target=1)
                assert len(found.tensors) == 3  # the mask is a tensor of floats that was named
                assert same(found.tensors[:2], expected, 1e-6)
            else:
                found = engine.attribute(inputs, "saliency", target=1, additional_forward_args=(2.0, mask))
                assert same(found.values, expected, 1e-6)
        # Rows of what is not explained go with their samples.
        path = engine.attribute((a, b), "integrated_gradients", target=1, additional_forward_args=(2.0, mask))
    assert path.delta.abs().max() <= 1e-3


def test_whole_numbers_are_explained_through_their_embedding() -> None:
    model = seeded(TinyLstm)
    tokens = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    embedded = model.embed(tokens).detach()

    def score(values: Tensor) -> Tensor:
        _, (h, _) = model.lstm(values)
        return model.head(torch.cat([h[0], h[1]], 1))[:, 1]

    leaf = embedded.clone().requires_grad_()
    expected = torch.autograd.grad(score(leaf).sum(), leaf)[0]
    with Engine(model) as engine:
        found = engine.attribute(tokens, "saliency", target=1)
        path = engine.attribute(tokens, "integrated_gradients", target=1, n_steps=80)
    assert found.values.shape == (3, 7, 6)
    assert apart(found.values, expected) <= 1e-6
    change = score(embedded) - score(torch.zeros_like(embedded))
    assert torch.allclose(path.values.sum((1, 2)), change, atol=1e-4)


def test_a_hugging_face_bert_by_its_token_ids() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=3,
    )
    model = seeded(lambda: transformers.BertForSequenceClassification(config))
    ids = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    embedded = model.bert.embeddings.word_embeddings(ids).detach().requires_grad_()
    score = model(inputs_embeds=embedded, attention_mask=mask).logits[:, 2]
    expected = torch.autograd.grad(score.sum(), embedded)[0]
    with Engine(model) as engine:
        inputs = {"input_ids": ids, "attention_mask": mask}
        found = engine.attribute(inputs, "saliency", target=2)
        path = engine.attribute(inputs, "integrated_gradients", target=2, n_steps=100)
    assert apart(found.values, expected) <= 1e-5
    assert path.values[1, 6:].abs().max() <= 1e-6  # what is masked out says nothing
    assert path.delta.abs().max() <= 0.02 * float(path.values.abs().sum())


@pytest.mark.parametrize(
    ("baselines", "start"),
    [
        (None, lambda x: x * 0),
        ("zero", lambda x: x * 0),
        (0.5, lambda x: x * 0 + 0.5),
        (1, lambda x: x * 0 + 1),
        ("mean", lambda x: x.mean((2, 3), keepdim=True).expand_as(x)),
        ("sample", lambda x: x.flip(0)),
        (torch.full((3, 8, 8), 0.2), lambda x: x * 0 + 0.2),
        (torch.full((1, 3, 8, 8), 0.2), lambda x: x * 0 + 0.2),
        (torch.full((3, 1, 1), 0.2), lambda x: x * 0 + 0.2),
        (torch.linspace(0, 1, 384).reshape(2, 3, 8, 8), lambda x: torch.linspace(0, 1, 384).reshape(x.shape)),
    ],
)
def test_baselines_of_every_form(baselines: Any, start: Callable[[Tensor], Tensor]) -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    x = image(2, 8)
    with Engine(model) as engine:
        found = engine.attribute(x, "integrated_gradients", target=1, baselines=baselines)
        shap = engine.attribute(x, "gradient_shap", target=1, baselines=baselines, n_samples=3)
    expected = model[1].weight[1].detach().reshape(3, 8, 8) * (x - start(x))
    assert apart(found.values, expected) <= 1e-5
    if not isinstance(baselines, Tensor) or baselines.shape[0] != 2:  # else a pool to draw from
        assert apart(shap.values, expected) <= 1e-5


def test_baselines_that_blur_and_that_are_noise() -> None:
    x = image(2, 32)
    with Engine(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))) as engine:

        def start(name: str, **options: Any) -> Tensor:
            weight = engine.model[1].weight[1].detach().reshape(3, 32, 32)
            found = engine.attribute(x, "integrated_gradients", target=1, baselines=name, **options)
            return x - found.values / weight

        blurred, noise = start("blur"), start("noise", seed=1)
        assert torch.allclose(noise, start("noise", seed=1))
        assert not torch.allclose(noise, start("noise", seed=2))
    assert blurred.std((2, 3)).max() < 0.2 * x.std((2, 3)).min()
    assert torch.allclose(blurred.mean(), x.mean(), atol=0.1)
    low, high = x.flatten(1).amin(1), x.flatten(1).amax(1)
    assert (noise.flatten(1).amin(1) >= low - 1e-2).all()
    assert (noise.flatten(1).amax(1) <= high + 1e-2).all()


@pytest.mark.parametrize("baselines", ["blurr", torch.zeros(5), (0, 0), True, object()])
def test_baselines_that_are_none(baselines: Any) -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    for method in ("integrated_gradients", "gradient_shap"):
        with Engine(model) as engine, pytest.raises(InputError, match=r"(?i)baseline"):
            engine.attribute(image(2, 8), method, target=1, baselines=baselines)


# -- chunks and streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SAMPLED)
@pytest.mark.parametrize("name", ["vgg", "lstm", "two_inputs"])
def test_the_size_of_chunks_changes_nothing(name: str, method: str) -> None:
    c = case(name)
    with Engine(c.model) as engine:
        results = [
            engine.attribute(c.inputs, method, target=1, internal_batch_size=size, **METHODS[method])
            for size in ("auto", 1, 5, 1000)
        ]
    assert len({(run.forward_passes, run.backward_passes) for run in results[1:]}) <= 3
    for other in results[1:]:
        assert same(other.values, results[0].values, 1e-5 if method == "var_grad" else 2e-6)
        for error, expected in zip(tuple_of(other.stderr), tuple_of(results[0].stderr), strict=True):
            if error is not None:
                assert torch.allclose(error, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["digits", "resnet18"])
def test_not_even_a_chunk_of_one_row_rounds_otherwise_where_a_relu_bends(name: str) -> None:
    c = case(name)
    x = c.inputs[0][:1]
    with Engine(c.model) as engine:
        few, whole = (
            engine.attribute(
                x, "integrated_gradients", target=1, baselines=0.1, n_steps=20, internal_batch_size=size
            )
            for size in (1, 20)
        )
    assert apart(few.values, whole.values) <= 1e-6


def test_a_chunk_that_does_not_fit_is_tried_smaller_with_the_same_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nnviz_widget.engine.attribution.task import Task

    c = case("two_inputs")
    inner = Task.gradients
    refused: list[int] = []

    def small(self: Task, tensors: Any, which: Tensor, **options: Any) -> Any:
        if len(which) > 3:
            refused.append(len(which))
            raise torch.OutOfMemoryError("not that many")
        return inner(self, tensors, which, **options)

    for method in SAMPLED:
        with Engine(c.model) as engine:
            expected = engine.attribute(c.inputs, method, target=1, internal_batch_size=4, **METHODS[method])
        with monkeypatch.context() as patch, Engine(c.model) as engine:
            patch.setattr(Task, "gradients", small)
            found = engine.attribute(c.inputs, method, target=1, internal_batch_size=16, **METHODS[method])
        assert same(found.values, expected.values, 1e-5)
    assert 16 in refused or 12 in refused


@pytest.mark.parametrize("method", ["smooth_grad", *PATHS])
def test_the_first_part_comes_early_and_parts_come_nearer(method: str) -> None:
    c = case("shapes")
    options = {"nt_samples": 60} if method == "smooth_grad" else {"n_samples": 60}
    options = {"n_steps": 60} if method == "integrated_gradients" else options
    x = c.inputs[0][:1]
    with Engine(c.model) as engine:
        whole = engine.attribute(x, method, target=1, **options)
        for _ in range(2):
            parts = list(engine.stream(x, method, target=1, **options))
            assert parts[0].progress <= 0.15
            assert parts[-1].progress == 1
            assert apart(parts[-1].values, whole.values) <= 1e-5
        early = next(part for part in parts if part.progress >= 0.1)
        middle = next(part for part in parts if part.progress >= 0.5)
        assert (middle.values - whole.values).norm() < (early.values - whole.values).norm()
        assert all(torch.isfinite(part.values).all() for part in parts)


class Held(nn.Module):
    """Waits in the middle of a forward, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)

    wait: Callable[[], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        if Held.wait is not None:
            Held.wait()
        return self.last(x)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[Held, threading.Event, threading.Event]:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert go_on.wait(PATIENCE)

    model = seeded(Held)
    monkeypatch.setattr(Held, "wait", None)
    model.hold = lambda: monkeypatch.setattr(Held, "wait", staticmethod(wait))
    model.release = lambda: monkeypatch.setattr(Held, "wait", None)
    return model, reached, go_on


def test_closing_a_stream_stops_the_chunk_that_runs(held: Any) -> None:
    model, reached, go_on = held
    x = rows(2, 6)
    with Engine(model) as engine:
        before = everything(model)
        stream = engine.stream(x, "integrated_gradients", target=1, internal_batch_size=4)
        first = next(stream)
        assert 0 < first.progress < 1
        model.hold()
        failed: list[BaseException] = []

        def take() -> None:
            try:
                next(stream)
            except BaseException as error:  # noqa: BLE001  looked at below
                failed.append(error)

        taking = threading.Thread(target=take)
        taking.start()
        assert reached.wait(PATIENCE)
        closing = threading.Thread(target=stream.close)
        closing.start()
        while not stream._closed.cancelled:
            pass
        model.release()
        go_on.set()
        for thread in (taking, closing):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert isinstance(failed[0], Cancelled)
        assert list(stream) == []
        again = engine.attribute(x, "integrated_gradients", target=1, internal_batch_size=4)
        assert again.progress == 1
    model.release()
    assert {**everything(model)} == {**before}


def test_a_stream_that_nobody_takes_computes_nothing_and_clicks_are_answered_between_its_parts() -> None:
    c = case("vgg")
    with Engine(c.model) as engine:
        stream = engine.stream(c.inputs, "smooth_grad", target=1, nt_samples=40, internal_batch_size=4)
        first = next(stream)
        trace = engine.trace(*c.inputs)
        assert trace.activation("1") is not None
        second = next(stream)
        assert second.forward_passes - first.forward_passes == 4
        assert (first.progress, second.progress) == (4 / 80, 8 / 80)
        stream.close()
        with suppress(StopIteration):
            next(stream)
            pytest.fail("a closed stream has nothing more")


# -- weights that move --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad"])
def test_weights_that_change_between_two_parts_never_mix(method: str) -> None:
    model = trained().eval()
    x = torch.randn(2, 3, 8, 8)
    with Engine(model) as engine:
        stream = engine.stream(x, method, target=1, internal_batch_size=4)
        next(stream)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.3).add_(0.01)
        changed = {name: value.clone() for name, value in model.state_dict().items()}
        parts = [next(stream)]
        with torch.no_grad():
            model[0].weight.add_(1)  # from here on the private copy is used
        parts += list(stream)
    fresh = trained().eval()
    fresh.load_state_dict(changed)
    with Engine(fresh) as engine:
        expected = engine.attribute(x, method, target=1, internal_batch_size=4)
    assert parts[-1].progress == 1
    assert parts[-1].consistent
    assert apart(parts[-1].values, expected.values) <= 1e-5


@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad"])
def test_weights_that_change_between_two_passes_of_a_job_never_mix(method: str) -> None:
    passes = itertools.count()

    class Learns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if next(passes) == 5:
                with torch.no_grad():
                    model[1].weight.mul_(1.3).add_(0.01)
            return x

    model = nn.Sequential(Learns(), *trained().eval()).eval()
    x = torch.randn(2, 3, 8, 8)
    with Engine(model) as engine:
        found = engine.attribute(x, method, target=1, internal_batch_size=4)
        assert next(passes) > 12
        again = engine.attribute(x, method, target=1, internal_batch_size=4)
    assert found.consistent
    assert found.epoch == again.epoch > 0
    assert apart(found.values, again.values) <= 1e-6


def test_what_is_streamed_while_another_thread_trains_belongs_to_one_moment() -> None:
    model = trained().train()
    x = torch.randn(2, 3, 8, 8)
    stop = threading.Event()

    def train() -> None:
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        while not stop.is_set():
            optimizer.zero_grad()
            images = torch.randn(4, 3, 8, 8, generator=generator)
            nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
            optimizer.step()
            stop.wait(0.001)

    training = threading.Thread(target=train)
    training.start()
    try:
        with Engine(model) as engine:
            for _ in range(3):
                parts = list(
                    engine.stream(x, "integrated_gradients", target=1, n_steps=30, internal_batch_size=6)
                )
                assert parts[-1].consistent
                # A path over moving weights would not add up.
                assert parts[-1].delta.abs().max() < 0.05 * parts[-1].values.abs().sum()
                assert len({part.epoch for part in parts}) <= 2
    finally:
        stop.set()
        training.join(PATIENCE)
    assert all(module.training for module in model.modules())


# -- harmless -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_careless_model_is_left_as_it_was_also_after_a_close_and_an_exception(
    method: str, mode: str
) -> None:
    torch.manual_seed(0)
    model = Careless()
    model(torch.randn(2, 3, 6, 6)).sum().backward()
    model.history.clear()
    model.train(mode == "train")
    x = torch.randn(2, 3, 6, 6) * 4
    x.requires_grad_()
    kept = x.detach().clone()
    with Engine(model) as engine:
        before = everything(model)
        engine.attribute(x, method, target=1, **METHODS[method])
        assert everything(model) == before
        stream = engine.stream(x, method, target=1, **METHODS[method])
        next(stream)
        stream.close()
        assert everything(model) == before
        with pytest.raises(InputError):
            engine.attribute(x, method, target=99, **METHODS[method])
        assert everything(model) == before
    assert everything(model) == before
    assert torch.equal(x, kept)
    assert x.grad is None


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_in_training_is_explained_as_in_eval_and_learns_nothing(method: str) -> None:
    model = trained().train()
    x = torch.randn(4, 3, 8, 8)
    before = everything(model)
    with Engine(model) as engine:
        found = engine.attribute(x, method, target=1, **METHODS[method])
    assert everything(model) == before
    with Engine(trained().eval()) as engine:
        expected = engine.attribute(x, method, target=1, **METHODS[method])
    assert apart(found.values, expected.values) <= 1e-6


def test_a_model_that_draws_random_numbers_is_explained_with_the_engines_own() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(nn.functional.dropout(x, 0.2)) + torch.rand(3)

    torch.manual_seed(5)
    model, x = Drawing(), rows(2, 4)
    state = torch.get_rng_state()
    with Engine(model) as engine:
        options = {"target": 1, "internal_batch_size": 5}
        results = [engine.attribute(x, "integrated_gradients", **options).values for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*results)
