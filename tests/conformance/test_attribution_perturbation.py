"""Perturbation methods equal Captum's, their definitions written out slowly, and what is known of games."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from nnviz_widget import demo
from nnviz_widget.engine.attribution.segments import slic
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.errors import InputError
from tests.conformance.test_harmless import Careless, everything
from tests.explained import NAMES, Case, apart, case
from tests.models import Mlp, TinyLstm, TinyVit, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Method and options, small enough to be run many times.
SMALL: dict[str, dict[str, Any]] = {
    "occlusion": {},
    "rise": {"n_samples": 60},
    "feature_ablation": {"feature_mask": "grid", "n_segments": 12},
    "feature_permutation": {"feature_mask": "grid", "n_segments": 6, "n_repeats": 4},
    "shapley_value_sampling": {"feature_mask": "grid", "n_segments": 6, "n_samples": 8},
    "kernel_shap": {"n_segments": 12, "n_samples": 60},
    "lime": {"n_segments": 12, "n_samples": 60},
}
#: Windows and steps for the inputs of each network.
WINDOWS: dict[str, tuple[Any, Any]] = {
    "digits": ((1, 7, 5), (1, 4, 5)),
    "shapes": ((3, 8, 8), (3, 5, 4)),
    "resnet18": ((3, 24, 24), (3, 16, 16)),
    "vgg": ((2, 5, 6), (1, 3, 4)),
    "lstm": ((2, 3), (2, 1)),
    "vit": ((3, 4, 4), (3, 4, 4)),
    "two_inputs": (((2,), (1,)), None),
}


def given(inputs: tuple[Tensor, ...]) -> Any:
    return inputs[0] if len(inputs) == 1 else inputs


def tuple_of(tensors: Any) -> tuple[Tensor, ...]:
    return () if tensors is None else tensors if isinstance(tensors, tuple) else (tensors,)


def same(found: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    pairs = zip(tuple_of(found), tuple_of(expected), strict=True)
    return all(apart(a, b) <= tolerance for a, b in pairs)


def compared(name: str) -> Case:
    """A case whose scores are large beside the rounding of float32, or else in float64."""
    return case(name).double() if name in ("lstm", "vit", "two_inputs") else case(name)


@contextmanager
def by_parts() -> Iterator[None]:
    """Let torch run the parts of transformer layers one by one, as a model with hooks does."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def one(c: Case) -> tuple[Tensor, ...]:
    return tuple(x[:1] for x in c.inputs)


# -- occlusion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_occlusion_equals_captums(name: str) -> None:
    c = compared(name)
    shapes, strides = WINDOWS[name]
    baselines = tuple(float(i + 1) / 4 for i in range(len(c.inputs)))
    with Engine(c.model) as engine:
        found = engine.attribute(
            c.inputs,
            "occlusion",
            target=c.target,
            sliding_window_shapes=shapes,
            strides=strides,
            baselines=baselines,
        )
    with by_parts():
        expected = captum.Occlusion(c.model).attribute(
            given(c.inputs),
            shapes,
            strides=strides,
            baselines=given(baselines),
            target=c.target,
            perturbations_per_eval=8,
        )
    assert same(found.values, expected)


def test_occlusion_of_a_linear_model_is_the_mean_over_the_windows_of_what_they_hide() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 6, 3)).double()
    x = torch.randn(2, 2, 5, 6).double()
    weight = model[1].weight[1].detach().reshape(2, 5, 6)
    hidden, covered = torch.zeros_like(x), torch.zeros_like(x)
    for top, left in itertools.product(range(0, 5, 2), range(0, 5, 2)):
        window = (slice(None), slice(None), slice(top, top + 3), slice(left, left + 3))
        share = (weight * (x - 0.5))[window].sum((1, 2, 3), keepdim=True)
        if top <= 2 and left <= 4:  # the last window begins where it still reaches the edge
            hidden[window] += share
            covered[window] += 1
    with Engine(model) as engine:
        found = engine.attribute(
            x, "occlusion", target=1, sliding_window_shapes=(2, 3, 3), strides=(2, 2, 2), baselines=0.5
        )
    assert apart(found.values, hidden / covered) <= 1e-12
    assert found.values.dtype == torch.float64


@pytest.mark.parametrize(
    ("x", "windows"),
    [
        (torch.randn(1, 3, 64, 48), 15 * 15),  # 8 and 6, by steps of 4 and 3
        (torch.randn(1, 7), 7),
        (torch.randn(1, 2, 16, 16, 16), 15**3),
        (torch.randn(1, 16, 24), 15 * 22),  # 2 and 3, by steps of 1
    ],
)
def test_without_a_window_occlusion_takes_an_eighth_of_each_side(x: Tensor, windows: int) -> None:
    with Engine(seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2)))) as engine:
        found = engine.attribute(x, "occlusion", target=0)
    assert found.forward_passes == windows + 1
    assert found.values.shape == x.shape


def test_a_window_without_its_channels_covers_them_all() -> None:
    c = case("shapes")
    with Engine(c.model) as engine:

        def ask(shapes: Any, strides: Any) -> Tensor:
            options = {"sliding_window_shapes": shapes, "strides": strides, "perturbations_per_eval": 16}
            return engine.attribute(one(c), "occlusion", target=1, **options).values

        full = ask((3, 8, 8), (3, 4, 4))
        for shapes, strides in [((8, 8), (4, 4)), (8, 4), (8, (4, 4))]:
            assert torch.equal(ask(shapes, strides), full)


def test_partial_occlusion_approaches_the_whole() -> None:
    c = case("shapes")
    with Engine(c.model) as engine:
        whole = engine.attribute(one(c), "occlusion").values
        errors = [
            (part.progress, float((part.values - whole).norm() / whole.norm()))
            for part in engine.stream(one(c), "occlusion", perturbations_per_eval=8)
        ]
    assert errors[-1][0] == 1
    assert errors[-1][1] < 1e-5
    assert next(error for progress, error in errors if progress >= 0.25) < 0.6
    assert next(error for progress, error in errors if progress >= 0.6) < 0.4


SIXTEENTHS = torch.arange(64) // 16 + 4 * (torch.arange(64)[:, None] // 16)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {"perturbations_per_eval": 8}),
        ("feature_ablation", {"feature_mask": SIXTEENTHS, "perturbations_per_eval": 2}),
        ("var_grad", {"nt_samples": 12, "internal_batch_size": 3}),
    ],
)
def test_parts_without_an_error_say_how_far_they_moved(method: str, options: dict[str, Any]) -> None:
    c = case("shapes")
    with Engine(c.model) as engine:
        parts = list(engine.stream(one(c), method, target=1, **options))
        sampled = list(engine.stream(one(c), "rise", target=1, n_samples=40))
    assert len(parts) > 3
    assert parts[0].moved is None
    for before, after in itertools.pairwise(parts):
        old, new = (part.values.double().flatten().tolist() for part in (before, after))
        away = math.fsum(abs(a - b) for a, b in zip(new, old, strict=True)) / len(new)
        assert after.moved == pytest.approx(away / max(map(abs, new)), rel=1e-4)
    assert any(part.moved > 0 for part in parts[1:])
    assert all(part.moved is None and part.stderr is not None for part in sampled)


# -- ablation and permutation -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_feature_ablation_equals_captums(name: str) -> None:
    c = compared(name)
    masks = tuple(blocks(x) + 10 * i for i, x in enumerate(c.inputs))
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "feature_ablation", target=c.target, feature_mask=masks)
        small = c.inputs[0][0].numel() < 100
        each = engine.attribute(c.inputs, "feature_ablation", target=c.target) if small else None
    peer = captum.FeatureAblation(c.model)
    with by_parts():
        expected = peer.attribute(given(c.inputs), feature_mask=given(masks), target=c.target)
        assert same(found.values, expected)
        if each is not None:
            assert same(each.values, peer.attribute(given(c.inputs), target=c.target))


def blocks(x: Tensor) -> Tensor:
    """A mask of up to eight features that broadcasts to the input."""
    where = torch.arange(x.shape[-1]) * 4 // x.shape[-1]
    return where if x.dim() < 4 else where + 4 * (torch.arange(x.shape[-2])[:, None] > x.shape[-2] // 2)


def test_features_may_differ_by_sample_and_reach_over_inputs() -> None:
    c = case("two_inputs")
    masks = (torch.tensor([[0, 0, 1, 1, 5], [2, 0, 0, 7, 7]]), torch.tensor([[1, 0, 0], [0, 2, 2]]))
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "feature_ablation", target=1, feature_mask=masks)
    with torch.no_grad():
        whole = c.model(*c.inputs)[:, 1]
        for i, mask in enumerate(masks):
            for row, place in itertools.product(range(2), range(mask.shape[1])):
                feature = mask[row, place]
                without = [
                    torch.where(m[row] == feature, 0.0, x[row])[None]
                    for m, x in zip(masks, c.inputs, strict=True)
                ]
                fall = whole[row] - c.model(*without)[0, 1]
                assert torch.isclose(found.values[i][row, place], fall, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_feature_permutation_equals_captums_with_the_same_permutations(name: str) -> None:
    # Permuted blocks of pictures that are much alike change the scores of a deep network by little.
    c = case(name).double() if name == "resnet18" else compared(name)
    inputs = tuple(torch.cat([x, x.flip(0) * 0.7, x * 1.3]) for x in c.inputs)
    masks = tuple(blocks(x)[None].expand(1, *blocks(x).shape) + 10 * i for i, x in enumerate(inputs))
    masks = tuple(
        mask.reshape(*[1] * (x.dim() - mask.dim()), *mask.shape)
        for mask, x in zip(masks, inputs, strict=True)
    )
    with Engine(c.model) as engine:
        found = engine.attribute(
            inputs, "feature_permutation", target=c.target, feature_mask=masks, n_repeats=1, seed=5
        )
    drawn = torch.Generator().manual_seed(5)

    def permute(x: Tensor, mask: Tensor) -> Tensor:
        order = torch.randperm(len(x), generator=drawn)
        while torch.equal(order, torch.arange(len(x))):
            order = torch.randperm(len(x), generator=drawn)
        return torch.where(mask, x[order], x)

    with by_parts():
        expected = captum.FeaturePermutation(c.model, permute).attribute(
            given(inputs), target=c.target, feature_mask=given(masks)
        )
    assert same(found.values, expected)
    assert torch.isinf(found.stderr[0] if isinstance(found.stderr, tuple) else found.stderr).all()


def test_permuted_features_say_how_far_their_mean_is_off() -> None:
    x = rows(6, 6)
    with Engine(seeded(Mlp)) as engine:
        few = engine.attribute(x, "feature_permutation", target=1, n_repeats=20, seed=1)
        many = engine.attribute(x, "feature_permutation", target=1, n_repeats=2000)
    z = ((few.values - many.values) / few.stderr).square().mean().sqrt()
    assert 0.7 < z < 1.4


# -- Shapley values -----------------------------------------------------------------------------------------


def exact_shapley(value: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor) -> Tensor:
    """Shapley values by their definition, from all sets of features."""
    count = x.shape[1]
    sets = torch.tensor(list(itertools.product([False, True], repeat=count)))
    found = []
    for row, none in zip(x, baseline, strict=True):
        worth = value(torch.where(sets, row, none))
        of = {tuple(kept): v for kept, v in zip(sets.tolist(), worth, strict=True)}
        shares = []
        for i in range(count):
            share = torch.zeros((), dtype=x.dtype)
            for kept, v in of.items():
                if kept[i]:
                    size = sum(kept) - 1
                    weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                    share += weight * (v - of[(*kept[:i], False, *kept[i + 1 :])])
            shares.append(share)
        found.append(torch.stack(shares))
    return torch.stack(found)


def game(features: int) -> nn.Module:
    """A network in which features act together."""
    return seeded(lambda: nn.Sequential(nn.Linear(features, 9), nn.Tanh(), nn.Linear(9, 3))).double()


class Product(nn.Module):
    """``x0 x1 + max(x2, x3)``."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, 0] * x[:, 1] + torch.maximum(x[:, 2], x[:, 3]))[:, None]


@pytest.mark.parametrize("features", [8, 10])
def test_kernel_shap_with_all_sets_gives_the_shapley_values(features: int) -> None:
    model, x = game(features), rows(2, features).double()
    baseline = torch.full_like(x, 0.3)
    expected = exact_shapley(lambda z: model(z)[:, 1].detach(), x, baseline)
    with Engine(model) as engine:
        found = engine.attribute(x, "kernel_shap", target=1, baselines=0.3, n_samples=2**features)
    assert apart(found.values, expected) <= 1e-6
    assert found.stderr is None
    assert found.delta.abs().max() <= 1e-12
    assert found.forward_passes == 2 * 2**features


def test_a_product_is_shared_evenly_and_a_maximum_by_what_each_adds() -> None:
    x = torch.tensor([[2.0, 3.0, 1.0, 5.0]]).double()
    # max(x2, x3): the first to come adds its own value, the other what is left.
    expected = torch.tensor([[3.0, 3.0, 0.5, 4.5]]).double()
    with Engine(Product()) as engine:
        shap = engine.attribute(x, "kernel_shap", target=0)
        sampled = engine.attribute(x, "shapley_value_sampling", target=0, n_samples=4000)
    assert apart(shap.values, expected) <= 1e-6
    assert apart(sampled.values, expected) <= 0.03


@pytest.mark.parametrize(
    ("method", "n_samples"), [("kernel_shap", (60, 240)), ("shapley_value_sampling", (16, 256))]
)
def test_sampled_shapley_values_are_off_by_what_they_say_and_less_with_more(
    method: str, n_samples: tuple[int, int]
) -> None:
    model, x = game(10), rows(2, 10).double()
    exact = exact_shapley(lambda z: model(z)[:, 1].detach(), x, torch.zeros_like(x))
    errors = []
    with Engine(model) as engine:
        for count in n_samples:
            runs = [engine.attribute(x, method, target=1, n_samples=count, seed=seed) for seed in range(6)]
            assert all(run.delta.abs().max() <= 1e-9 for run in runs)
            away = torch.stack([run.values - exact for run in runs])
            errors.append(float(away.square().mean().sqrt()))
            z = (away / torch.stack([run.stderr for run in runs])).square().mean().sqrt()
            assert 0.6 < z < 1.6
    assert errors[1] < 0.75 * errors[0]


def test_sampled_shapley_values_equal_captums_from_many_orders() -> None:
    c = case("two_inputs")
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "shapley_value_sampling", target=1, n_samples=400)
    expected = captum.ShapleyValueSampling(c.model).attribute(
        c.inputs, target=1, n_samples=400, perturbations_per_eval=64
    )
    assert same(found.values, expected, 0.1)


# -- surrogates ---------------------------------------------------------------------------------------------


def test_lime_is_the_ridge_regression_of_scikit_learn_on_the_same_sets() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    model, x = game(6), rows(1, 6).double()
    generator = torch.Generator().manual_seed(3)
    sets = torch.rand(80, 6, generator=generator) < 0.5
    sets[0] = True
    with torch.no_grad():
        scores = model(torch.where(sets, x, 0.0))[:, 1]
    away = 1 - (sets.sum(1) / 6).sqrt()
    weights = torch.sqrt(torch.exp(-(away**2) / 0.4**2))
    expected = linear_model.Ridge(alpha=0.5).fit(sets.numpy(), scores.numpy(), weights.numpy()).coef_
    with Engine(model) as engine:
        found = engine.attribute(x, "lime", target=1, n_samples=80, kernel_width=0.4, alpha=0.5, seed=3)
    assert apart(found.values, torch.from_numpy(expected)[None]) <= 1e-6


def test_lime_equals_captums_with_the_same_sets_weights_and_fit() -> None:
    pytest.importorskip("sklearn")
    from captum._utils.models.linear_model import SkLearnRidge

    c = case("two_inputs")
    inputs = one(c)
    features = 8
    sets = torch.rand(50, features, generator=torch.Generator().manual_seed(0)) < 0.5
    sets[0] = True
    coming = iter(sets)

    def weigh(_: Any, __: Any, kept: Tensor, **___: Any) -> Tensor:
        away = 1 - (kept.sum() / features).sqrt()
        return torch.exp(-0.5 * (away / 0.25) ** 2)

    peer = captum.Lime(
        c.model,
        interpretable_model=SkLearnRidge(alpha=0.01),
        similarity_func=weigh,
        perturb_func=lambda *_, **__: next(coming)[None].float(),
    )
    expected = peer.attribute(inputs, target=1, n_samples=50)
    with Engine(c.model) as engine:
        found = engine.attribute(inputs, "lime", target=1, n_samples=50)
    assert same(found.values, expected)


def test_the_errors_of_lime_shrink_and_tell_how_far_seeds_lie_apart() -> None:
    model, x = game(8), rows(1, 8).double()
    with Engine(model) as engine:
        runs = [engine.attribute(x, "lime", target=1, n_samples=200, seed=seed) for seed in range(12)]
        many = engine.attribute(x, "lime", target=1, n_samples=3200)
    apart_ = torch.stack([run.values for run in runs]).std(0).square().mean().sqrt()
    said = torch.stack([run.stderr for run in runs]).square().mean().sqrt()
    assert 0.6 < float(said / apart_) < 1.6
    assert float(many.stderr.mean() / runs[0].stderr.mean()) < 0.4


@pytest.mark.parametrize("method", ["kernel_shap", "lime", "shapley_value_sampling", "feature_ablation"])
def test_of_a_linear_model_every_feature_gets_its_weight_times_its_change(method: str) -> None:
    torch.manual_seed(2)
    model = nn.Linear(12, 3).double()
    x, baseline = torch.randn(2, 12).double(), torch.randn(12).double()
    with Engine(model) as engine:
        options = {"alpha": 0.0} if method == "lime" else {}
        found = engine.attribute(x, method, target=2, baselines=baseline, **options)
    assert apart(found.values, model.weight[2].detach() * (x - baseline)) <= 1e-6


# -- RISE ---------------------------------------------------------------------------------------------------


def test_rise_is_the_mean_score_of_the_masks_that_show_a_place() -> None:
    x = rows(2, 6).double()
    model = game(6)
    generator = torch.Generator().manual_seed(4)
    masks = (torch.rand(300, 1, 6, generator=generator) < 0.3)[:, 0]
    with torch.no_grad():
        scores = torch.stack([model(torch.where(masks, row, 0.0))[:, 1] for row in x])
    shown = masks.double()
    expected = scores @ shown / shown.sum(0)
    with Engine(model) as engine:
        found = engine.attribute(x, "rise", target=1, n_samples=300, p=0.3, seed=4)
    assert apart(found.values, expected) <= 1e-9
    each = torch.where(masks, (scores[:, :, None] - expected[:, None]).square(), 0.0)
    assert apart(found.stderr, each.sum(1).sqrt() / shown.sum(0)) <= 1e-6


def test_rise_with_windows_is_the_mean_score_of_those_that_leave_a_place_alone() -> None:
    seen: list[Tensor] = []
    weights = torch.randn(1, 2, 9, 7, generator=torch.Generator().manual_seed(1))

    def watch(output: Tensor) -> Tensor:
        if len(output) == 100:  # else it is only looked at
            seen.extend(output)
        return (output * weights).sum((1, 2, 3)) + (output[:, 0, 4, 3] - 1).square() * 5

    with Engine(nn.Identity()) as engine:
        found = engine.attribute(
            torch.ones(1, 2, 9, 7), "rise", target=watch, n_samples=500, window=3, perturbations_per_eval=100
        )
    shown = torch.stack(seen)[-500:]
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    hidden = (shown == 0).all(1).float()
    assert torch.equal((shown == 0).any(1).float(), hidden)
    assert hidden.amax(2).sum(1).max() == 3
    # Every place as often, the edges too.
    assert hidden.mean(0).min() > 0.6 * hidden.mean()
    scores = watch(shown)
    expected = (scores[:, None, None] * (1 - hidden)).sum(0) / (1 - hidden).sum(0)
    assert torch.allclose(found.values[0, 0], expected, atol=1e-5)


def test_the_masks_of_rise_are_smooth_shifted_and_show_the_share_that_was_asked_for() -> None:
    seen: list[Tensor] = []

    def watch(output: Tensor) -> Tensor:
        seen.append(output.detach())
        return output.mean((1, 2, 3))

    with Engine(nn.Identity()) as engine:
        engine.attribute(torch.ones(1, 1, 30, 44), "rise", target=watch, n_samples=400, p=0.4)
    masks = torch.cat([part for part in seen if len(part)])[1:]
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    # Everywhere about as often: no place is favoured by the grid.
    assert (masks.mean((0, 1)) - 0.4).abs().max() < 0.12
    assert (masks[..., 1:] - masks[..., :-1]).abs().max() <= 1 / (44 // 7) + 1e-6


def test_rise_finds_the_one_place_that_matters() -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 4:8, 20:24].mean((1, 2, 3))[:, None]

    with Engine(Corner()) as engine:
        found = engine.attribute(torch.ones(1, 3, 32, 32), "rise", target=0, n_samples=600).values[0, 0]
    y, x = divmod(int(found.argmax()), 32)
    assert abs(y - 6) <= 3
    assert abs(x - 22) <= 3


# -- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("name", ["vgg", "lstm", "two_inputs"])
def test_the_size_of_chunks_changes_nothing(name: str, method: str) -> None:
    c = case(name).double()
    with Engine(c.model) as engine:
        results = [
            engine.attribute(c.inputs, method, target=c.target, perturbations_per_eval=size, **SMALL[method])
            for size in ("auto", 5, 1000)
        ]
    for other in results[1:]:
        assert same(other.values, results[0].values, 1e-9)
        for error, expected in zip(tuple_of(other.stderr), tuple_of(results[0].stderr), strict=True):
            assert torch.allclose(error, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", [name for name in SMALL if name != "feature_permutation"])
def test_a_sample_is_explained_the_same_alone_and_in_a_batch(method: str) -> None:
    c = case("vgg")
    with Engine(c.model) as engine:
        together = engine.attribute(c.inputs, method, target=[1, 2], **SMALL[method]).values
        alone = engine.attribute(c.inputs[0][1:], method, target=2, **SMALL[method]).values
    assert same(together[1:], alone, 1e-5)


@pytest.mark.parametrize("method", SMALL)
def test_the_first_part_comes_early_and_the_last_is_the_result(method: str) -> None:
    c = case("digits")
    options = {} if method == "occlusion" else {**SMALL[method]}
    options |= {"n_repeats": 10} if method == "feature_permutation" else {}
    with Engine(c.model) as engine:
        whole = engine.attribute(c.inputs, method, target=1, **options)
        for _ in range(2):  # at first nothing is known of good sizes, then much
            parts = list(engine.stream(c.inputs, method, target=1, **options))
            assert parts[0].progress <= 0.15
            assert parts[0].values.shape == whole.values.shape
            assert torch.isfinite(parts[0].values).all()
            assert [part.progress for part in parts] == sorted(part.progress for part in parts)
            assert parts[-1].progress == 1
            assert same(parts[-1].values, whole.values, 1e-5)
        assert parts[-1].forward_passes == whole.forward_passes


@pytest.mark.parametrize("method", ["rise", "kernel_shap", "lime", "shapley_value_sampling"])
def test_parts_come_nearer_and_say_so(method: str) -> None:
    c = case("two_inputs")
    options: dict[str, Any] = {"n_samples": 800} if method != "shapley_value_sampling" else {"n_samples": 200}
    options |= {"feature_mask": None} if method == "kernel_shap" else {}
    if method == "kernel_shap":
        options["n_samples"] = 200  # below 2**8: sampled
    with Engine(c.model) as engine:
        reference = engine.attribute(one(c), method, target=1, **{**options, "n_samples": 20_000, "seed": 9})
        parts = [
            (part.progress, part.values[0], part.stderr[0])
            for part in engine.stream(one(c), method, target=1, perturbations_per_eval=16, **options)
        ]
    said = [float(stderr.mean()) for _, _, stderr in parts if torch.isfinite(stderr).all()]
    assert said[-1] < 0.5 * said[0]
    early = next(values for progress, values, _ in parts if progress > 0.1)
    target = reference.values[0]
    assert (parts[-1][1] - target).norm() < (early - target).norm()


@pytest.mark.parametrize("method", SMALL)
def test_a_careless_model_is_left_as_it_was_also_after_a_cancel_and_an_exception(method: str) -> None:
    torch.manual_seed(0)
    model = Careless().train()
    x = torch.randn(2, 3, 6, 6)
    kept = x.clone()
    with Engine(model) as engine:
        before = everything(model)
        engine.attribute(x, method, target=1, **SMALL[method])
        assert everything(model) == before
        stream = engine.stream(x, method, target=1, **SMALL[method])
        next(stream)
        stream.close()
        assert everything(model) == before
        with pytest.raises(InputError):
            engine.attribute(x, method, target=99, **SMALL[method])
        assert everything(model) == before
    assert torch.equal(x, kept)


def test_a_closed_stream_stops_between_two_modules_of_a_running_chunk() -> None:
    ran: list[int] = []
    close: list[Callable[[], None]] = []

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))

        def forward(self, x: Tensor) -> Tensor:
            for i, part in enumerate(self.parts):
                x = part(x)
                if close:
                    ran.append(i)
                    if i == 2:
                        close[0]()
            return x

    with Engine(seeded(Steps)) as engine:
        stream = engine.stream(rows(1, 4), "rise", target=0, perturbations_per_eval=10)
        next(stream)
        close.append(stream._closed.cancel)  # what another thread's close() does first
        with pytest.raises(Cancelled):
            next(stream)
        assert ran == [0, 1, 2]
        assert list(stream) == []


@pytest.mark.parametrize("method", ["kernel_shap", "lime", "feature_ablation", "occlusion"])
def test_a_text_is_explained_by_its_tokens(method: str) -> None:
    model = seeded(TinyLstm)
    tokens = torch.randint(0, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    options = {"feature_mask": "auto"} if method == "feature_ablation" else {}
    with Engine(model) as engine:
        found = engine.attribute(tokens, method, target=1, **options)
    assert found.values.shape == (2, 7, 6)
    # All elements of a token have the number of the token.
    assert torch.equal(found.values, found.values[..., :1].expand_as(found.values))
    if method in ("feature_ablation", "occlusion"):
        with torch.no_grad():
            embedded = model.embed(tokens)
            for place in range(7):
                without = embedded.clone()
                without[:, place] = 0
                _, (h, _) = model.lstm(without)
                score = model.head(torch.cat([h[0], h[1]], 1))[:, 1]
                fall = model(tokens)[:, 1] - score
                assert torch.allclose(found.values[:, place, 0], fall, atol=1e-6)


def test_a_single_number_per_sample_is_one_feature_and_has_no_places() -> None:
    class Scaled(nn.Module):
        def forward(self, scale: Tensor, x: Tensor) -> Tensor:
            return scale[:, None] * x

    scale, x = torch.tensor([2.0, -1.0]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    with Engine(Scaled()) as engine:
        for method in ("kernel_shap", "shapley_value_sampling"):
            # Half of the product to either side: neither does anything alone.
            found = engine.attribute((scale, x), method, target=1, **SMALL[method] | {"n_samples": 2000})
            half = scale * x[:, 1] / 2
            assert torch.allclose(found.values[0], half, atol=0.3)
            assert torch.allclose(found.values[1].sum(1), half, atol=0.3)
        for method in ("occlusion", "rise"):
            with pytest.raises(InputError, match="single number"):
                engine.attribute((scale, x), method, target=1)


def test_superpixels_cover_the_image_are_connected_and_follow_its_edges() -> None:
    shapes = demo.shapes()
    picture = nn.functional.interpolate(shapes.inputs[:1], size=(96, 80), mode="bilinear")[0]
    labels = slic(picture, 40)
    assert labels.shape == (96, 80)
    count = int(labels.max()) + 1
    assert 25 <= count <= 50
    assert torch.equal(labels.unique(), torch.arange(count))
    for label in range(count):
        assert regions(labels == label) == 1
    two = torch.zeros(3, 40, 40)
    two[:, :, 17:] = 5.0
    found = slic(two, 16)
    assert not set(found[:, :17].unique().tolist()) & set(found[:, 17:].unique().tolist())


def test_superpixels_of_noise_are_about_as_many_as_were_asked_for() -> None:
    noise = torch.randn(3, 60, 50, generator=torch.Generator().manual_seed(0))
    assert int(slic(noise, 30).max()) + 1 == pytest.approx(30, abs=6)


def test_superpixels_are_given_up_when_nobody_wants_them_any_more() -> None:
    class GivenUpError(Exception):
        pass

    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise GivenUpError

    with pytest.raises(GivenUpError):
        slic(demo.shapes().inputs[0], 40, check=check)


def regions(inside: Tensor) -> int:
    """How many connected regions there are, by filling one after another."""
    left, count = {tuple(place) for place in inside.nonzero().tolist()}, 0
    while left:
        waiting, count = [left.pop()], count + 1
        while waiting:
            y, x = waiting.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
    return count


def test_superpixels_of_each_sample_are_its_own() -> None:
    c = case("shapes")
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "kernel_shap", target=1, n_segments=20, n_samples=120).values
    for row, picture in enumerate(c.inputs[0]):
        labels = slic(picture, 20)
        for label in labels.unique():
            assert found[row][:, labels == label].unique().numel() == 1


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("occlusion", {"sliding_window_shapes": (9, 9, 9)}, "does not fit"),
        ("occlusion", {"sliding_window_shapes": (3, 4, 4), "strides": 5}, "gaps"),
        ("occlusion", {"sliding_window_shapes": (3,)}, "one for each axis"),
        ("occlusion", {"sliding_window_shapes": "big"}, "whole number"),
        ("occlusion", {"perturbations_per_eval": 0}, "whole number"),
        ("rise", {"p": 1.5}, "between 0 and 1"),
        ("rise", {"n_samples": 0}, "n_samples"),
        ("feature_ablation", {"feature_mask": "slik"}, "slic"),
        ("feature_ablation", {"feature_mask": torch.zeros(5)}, "whole numbers"),
        ("feature_ablation", {"feature_mask": torch.zeros(5, dtype=torch.long)}, "does not fit"),
        ("feature_permutation", {}, "only one sample"),
        ("kernel_shap", {"n_segments": 0}, "n_segments"),
        ("lime", {"kernel_width": 0}, "kernel_width"),
        ("lime", {"alpha": -1}, "alpha"),
        ("lime", {"kernel_with": 1}, "kernel_width"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(method: str, options: dict[str, Any], words: str) -> None:
    with Engine(seeded(TinyVit)) as engine, pytest.raises(InputError, match=words):
        engine.attribute(torch.randn(1, 3, 16, 16), method, target=1, **options)
