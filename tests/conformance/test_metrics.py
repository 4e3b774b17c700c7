"""Metrics equal slow references: formulas of a linear model, plain loops, scipy, Captum and Quantus.

The numbers of Quantus 0.6.0 (LGPL, therefore not installed for the tests) were printed once, for the data of
`quantus_data`: ``PointingGame``, ``RelevanceMassAccuracy`` and ``RelevanceRankAccuracy`` with
``abs=False, normalise=False``, and ``PixelFlipping(features_in_step=8, perturb_baseline=0.0)`` with
``softmax=True``; that of scikit-image 0.26 by ``structural_similarity`` with ``gaussian_weights=True``,
``use_sample_covariance=False`` and the border of five pixels left out.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.engine.metrics.maps import spearman, ssim
from nnviz_widget.engine.metrics.road import filled
from nnviz_widget.errors import InputError, NNVizError, UnknownNameError
from tests.conformance.test_harmless import Careless, everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.result import Attribution

CONTROLS = ["random", "center"]


def linear(features: int = 12, classes: int = 3, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(features, classes).eval()


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    return network()


@pytest.fixture
def engine(model: nn.Module) -> Iterator[Engine]:
    with Engine(model) as engine:
        yield engine


def pictures(count: int = 3, side: int = 12) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def column(evaluation: Any, name: str, metric: str) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = evaluation.readings[name][metric]
    return values


# -- curves -------------------------------------------------------------------------------------------------


def test_deletion_and_insertion_of_a_linear_model_are_sums_of_the_largest_terms() -> None:
    model = linear()
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    terms = (x * model.weight[1]).detach().double().numpy()
    bias = float(model.bias[1].detach())
    with Engine(model) as engine:
        exact = engine.attribute(x, "input_x_gradient", target=1)
        options = {"baselines": "zero", "steps": 12, "output": "score"}
        found = engine.evaluate({"exact": exact}, {"deletion": options, "insertion": options}, sign="signed")
    ordered = -np.sort(-terms, axis=1)
    first = np.concatenate([np.zeros((4, 1)), ordered.cumsum(1)], axis=1)
    for metric, y in (("deletion", terms.sum(1, keepdims=True) - first + bias), ("insertion", first + bias)):
        curve = found.curves[metric]["exact"]
        np.testing.assert_allclose(curve.x, np.arange(13) / 12)
        np.testing.assert_allclose(curve.y, y.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            column(found, "exact", metric), np.trapezoid(y, dx=1 / 12, axis=1), rtol=1e-5, atol=1e-5
        )
    # No order takes more of the score, and none gives it back faster.
    assert column(found, "exact", "deletion").mean() < column(found, "random", "deletion").mean()
    assert column(found, "exact", "insertion").mean() > column(found, "random", "insertion").mean()


def test_curves_of_a_network_equal_a_loop_over_pixels(model: nn.Module, engine: Engine) -> None:
    x = pictures()
    found = engine.attribute(x, "saliency", target=2)
    table = engine.evaluate(found, {"deletion": {"steps": 7}, "insertion": {"steps": 7}})
    grey = x.mean((2, 3), keepdim=True).expand_as(x)
    counts = sorted({round(144 * step / 7) for step in range(8)})
    assert isinstance(found.values, Tensor)
    for sample in range(3):
        order = np.argsort(-found.values[sample].abs().sum(0).flatten().numpy())
        for metric, begin, end in (("deletion", x, grey), ("insertion", grey, x)):
            y = []
            for count in counts:
                picture = begin[sample].clone()
                for place in order[:count]:
                    row, col = divmod(int(place), 12)
                    picture[:, row, col] = end[sample][:, row, col]
                with torch.no_grad():
                    y.append(float(model(picture[None]).softmax(1)[0, 2]))
            _, curves = table.curve_readings[metric]["saliency"]
            np.testing.assert_allclose(curves[sample], y, rtol=1e-4, atol=1e-6)
    told = table.recomputed
    assert told is not None
    assert 0 < told.share <= 1
    assert engine.evaluate(found, "agreement").recomputed is None  # nothing was asked of the model


def test_pixel_flipping_is_the_mean_fall_of_the_score_on_noise(model: nn.Module, engine: Engine) -> None:
    x = pictures()
    found = engine.attribute(x, "saliency", target=2)
    table = engine.evaluate(found, {"pixel_flipping": {"share": 0.5, "steps": 6, "output": "score"}})
    axis, y = table.curve_readings["pixel_flipping"]["saliency"]
    np.testing.assert_allclose(axis, np.arange(7) / 12)
    with torch.no_grad():
        np.testing.assert_allclose(y[:, 0], model(x)[:, 2].numpy(), rtol=1e-4)
    np.testing.assert_allclose(column(table, "saliency", "pixel_flipping"), (y[:, :1] - y).mean(1), rtol=1e-6)


@pytest.mark.parametrize("metric", ["deletion", "insertion", "pixel_flipping", "road", "infidelity"])
def test_the_size_of_the_chunks_changes_nothing(engine: Engine, metric: str) -> None:
    found = engine.attribute(pictures(), "saliency", target=2)
    sizes: list[Any] = [1, 7, "auto"]
    tables = [engine.evaluate(found, {metric: {"batch_size": size}}) for size in sizes]
    for name in ("saliency", *CONTROLS):
        for table in tables[1:]:
            np.testing.assert_allclose(
                column(table, name, metric), column(tables[0], name, metric), rtol=1e-5, atol=1e-6
            )


def test_ties_are_broken_by_lot_and_not_from_the_top_left() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2)).eval()
    nn.init.ones_(model[1].weight)
    x = torch.ones(1, 1, 10, 10)
    with Engine(model) as engine:
        flat = engine.attribute(x, "saliency", target=0)
        assert isinstance(flat.values, Tensor)
        flat.values = torch.zeros_like(flat.values)
        mask = torch.zeros(10, 10)
        mask[:5] = 1
        table = engine.evaluate({"flat": flat}, ["rank_accuracy", "pointing_game"], mask)
    assert 0.3 < table.rows[0]["rank_accuracy"] < 0.7
    assert table.rows[0]["pointing_game"] == pytest.approx(0.5)


# -- the place of the object --------------------------------------------------------------------------------


def quantus_data() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    rng = np.random.RandomState(7)
    x = torch.from_numpy(rng.randn(3, 1, 8, 8).astype("float32"))
    values, mask = torch.from_numpy(rng.rand(3, 1, 8, 8)), torch.zeros(3, 8, 8)
    mask[0, 2:6, 1:5] = mask[1, 0:3, 0:8] = mask[2, 5:8, 5:8] = 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(rng.randn(10, 64).astype("float32") * np.float32(0.2)))
    return model, x, values, mask


def test_localisation_and_flipping_give_the_numbers_of_quantus() -> None:
    model, x, values, mask = quantus_data()
    with Engine(model) as engine:
        known = engine.attribute(x, "saliency", target=[3, 1, 4])
        table = engine.evaluate(
            {"saliency": known, "given": values},
            {
                "pointing_game": {},
                "mass_accuracy": {},
                "rank_accuracy": {},
                "deletion": {"steps": 8, "baselines": "zero"},
            },
            mask,
        )
    assert column(table, "given", "pointing_game").tolist() == [0, 0, 0]
    np.testing.assert_allclose(
        column(table, "given", "mass_accuracy"), [0.2437895654, 0.3948025869, 0.1351253805], rtol=1e-6
    )
    assert column(table, "given", "rank_accuracy").tolist() == [0.25, 0.375, 0]
    expected = [
        [0.065139, 0.141947, 0.071394, 0.10695, 0.060609, 0.067305, 0.082701, 0.1],
        [0.001307, 0.004779, 0.004509, 0.007059, 0.021547, 0.043786, 0.055578, 0.1],
        [0.044572, 0.04516, 0.047721, 0.067999, 0.031192, 0.040416, 0.039597, 0.1],
    ]
    np.testing.assert_allclose(table.curve_readings["deletion"]["given"][1][:, 1:], expected, atol=2e-6)


def test_the_tolerance_of_the_pointing_game_is_a_distance_to_the_mask(engine: Engine) -> None:
    x = pictures(1)
    values = torch.zeros(1, 1, 12, 12)
    values[0, 0, 6, 6] = 1
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 9, 10] = True  # five pixels away: 3 down, 4 to the right
    known = engine.attribute(x, "saliency", target=0)
    for tolerance, hit in ((0, 0), (4.9, 0), (5, 1), (8, 1)):
        found = engine.evaluate(
            {"saliency": known, "point": values}, {"pointing_game": {"tolerance": tolerance}}, mask
        )
        assert found.rows[1]["pointing_game"] == hit
    empty = engine.evaluate(known, "pointing_game", torch.zeros(1, 12, 12))
    assert empty.rows[0]["pointing_game"] is None  # nothing to find


# -- values against changes ---------------------------------------------------------------------------------


def test_completeness_is_the_share_of_the_change_that_is_not_accounted_for(
    model: nn.Module, engine: Engine
) -> None:
    x = pictures()
    paths = engine.attribute(x, "integrated_gradients", target=2, baselines="mean", n_steps=5)
    plain = engine.attribute(x, "saliency", target=2)
    table = engine.evaluate([paths, plain], {"completeness": {"baselines": "zero"}})
    promised = engine.evaluate([paths, plain], "completeness")
    with torch.no_grad():
        scores = model(x)[:, 2]
        to_grey = scores - model(x.mean((2, 3), keepdim=True).expand_as(x))[:, 2]
        to_zero = scores - model(torch.zeros_like(x))[:, 2]
    assert isinstance(paths.values, Tensor)
    assert isinstance(plain.values, Tensor)
    for told, name, values, change in (
        (promised, "integrated_gradients", paths.values, to_grey),
        (table, "integrated_gradients", paths.values, to_zero),
        (table, "saliency", plain.values, to_zero),
    ):
        expected = (values.sum((1, 2, 3)) - change).abs() / change.abs()
        np.testing.assert_allclose(column(told, name, "completeness"), expected, rtol=1e-3, atol=1e-5)


def test_only_what_promises_completeness_is_held_to_it(model: nn.Module, engine: Engine) -> None:
    x = pictures(2)
    cells = (torch.arange(12) // 4)[:, None] * 3 + torch.arange(12) // 4
    shapley = engine.attribute(
        x, "shapley_value_sampling", target=2, baselines="mean", feature_mask=cells[None, None], n_samples=2
    )
    maps = {
        "shapley": shapley,
        "lime": engine.attribute(x, "lime", target=2, n_samples=40),
        "saliency": engine.attribute(x, "saliency", target=2),
        **engine.cams(x, target=2),
        "elsewhere": x.clone(),
    }
    table = engine.evaluate(maps, "completeness")
    told = {row["name"]: row["completeness"] for row in table.rows}
    # The sum over its features is the change, up to rounding, and not the sum over all their pixels.
    assert told.pop("shapley") < 1e-5
    assert told.pop("elsewhere") is not None
    assert set(told) >= {"lime", "saliency", "grad_cam", *CONTROLS}
    assert set(told.values()) == {None}
    assert any("saliency does not promise" in note for note in table.notes)


def test_an_exact_attribution_of_a_linear_model_has_no_infidelity_whatever_its_scale() -> None:
    model = linear()
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    with Engine(model) as engine:
        exact = engine.attribute(x, "saliency", target=1)
        assert isinstance(exact.values, Tensor)
        table = engine.evaluate({"exact": exact, "twice": 2 * exact.values}, "infidelity")
        raw = engine.evaluate(
            {"exact": exact, "twice": 2 * exact.values},
            {"infidelity": {"normalize": False, "n_perturb_samples": 2000}},
        )
    assert column(table, "exact", "infidelity").max() < 1e-6
    assert column(table, "twice", "infidelity").max() < 1e-6
    assert table.rows[2]["infidelity"] > 0.3
    assert column(raw, "exact", "infidelity").max() < 1e-6
    spread = 0.1 * (x.amax(1) - x.amin(1))
    expected = spread**2 * model.weight[1].square().sum()  # E (I . w)^2 of noise of that spread
    np.testing.assert_allclose(column(raw, "twice", "infidelity"), expected.detach(), rtol=0.12)


def test_infidelity_agrees_with_captum(model: nn.Module, engine: Engine) -> None:
    from captum.metrics import infidelity

    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    assert isinstance(found.values, Tensor)
    spread = 0.1 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    changes: list[Tensor] = []

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn_like(inputs) * spread.repeat_interleave(len(inputs) // 2, 0)
        changes.append(noise)
        return noise, inputs - noise

    count = 3000
    torch.manual_seed(0)
    with torch.no_grad():
        own = infidelity(
            model, perturb, x, found.values, target=2, n_perturb_samples=count, normalize=True,
            max_examples_per_batch=2 * count,
        )  # fmt: skip
        noise = torch.cat(changes)[: 2 * count].view(2, count, *x.shape[1:])
        falls = torch.stack([model(x[i : i + 1])[:, 2] - model(x[i] - noise[i])[:, 2] for i in range(2)])
    options = {"n_perturb_samples": count, "batch_size": 256}
    ours = engine.evaluate(found, {"infidelity": options}, sign="signed")
    np.testing.assert_allclose(column(ours, "saliency", "infidelity"), own / falls.square().mean(1), rtol=0.1)


def test_infidelity_to_squares_hides_windows_of_a_quarter_of_each_side() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with Engine(model) as engine:
        exact = engine.attribute(x, "saliency", target=1)
        table = engine.evaluate(exact, {"infidelity": {"perturbation": "square", "baselines": "zero"}})
    assert column(table, "saliency", "infidelity").max() < 1e-6


def test_sensitivity_is_the_largest_change_of_the_map() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square().sum(1, keepdim=True)

    x = torch.tensor([[0.5], [2.0]])
    with Engine(Square()) as engine:
        found = engine.attribute(x, "saliency")
        table = engine.evaluate(found, {"sensitivity_max": {"perturb_radius": 0.1, "n_perturb_samples": 300}})
    # The gradient is 2 x: it changes by at most 2 r, relative to 2 |x|.
    np.testing.assert_allclose(column(table, "saliency", "sensitivity_max"), [0.2, 0.05], rtol=0.02)
    assert column(table, "random", "sensitivity_max").max() == 0
    with Engine(linear()) as engine:
        flat = engine.evaluate(engine.attribute(torch.randn(2, 12), "saliency"), "sensitivity_max")
    assert flat.rows[0]["sensitivity_max"] == pytest.approx(0, abs=1e-6)


def test_sensitivity_agrees_with_captum(model: nn.Module, engine: Engine) -> None:
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    options = {"n_perturb_samples": 60, "perturb_radius": 0.05}
    ours = column(engine.evaluate(found, {"sensitivity_max": options}), "saliency", "sensitivity_max")
    torch.manual_seed(0)

    def explained(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = tuple(tensor.requires_grad_() for tensor in inputs)
        return Saliency(model).attribute(leaves, target=2, abs=False)

    theirs = sensitivity_max(explained, x, perturb_radius=0.05, n_perturb_samples=60)
    np.testing.assert_allclose(ours, theirs.detach(), rtol=0.15)


# -- ROAD ---------------------------------------------------------------------------------------------------


def solved(picture: np.ndarray[Any, Any], removed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The linear system of ROAD for one channel, equation by equation, by scipy's sparse solver."""
    height, width = picture.shape
    places = [(int(y), int(x)) for y, x in zip(*np.nonzero(removed), strict=True)]
    number = {place: i for i, place in enumerate(places)}
    system, right = sparse.lil_matrix((len(places), len(places))), np.zeros(len(places))
    for i, (y, x) in enumerate(places):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                at = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= at[0] < height and 0 <= at[1] < width):
                    continue
                weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
                system[i, i] += weight
                if at in number:
                    system[i, number[at]] -= weight
                else:
                    right[i] += weight * picture[at]
    whole = picture.copy()
    whole[removed] = spsolve(system.tocsr(), right)
    return whole


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_holes_are_filled_with_the_solution_of_the_linear_system(share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 17, 13, generator=generator)
    removed = torch.rand(2, 1, 17, 13, generator=generator) < share
    whole = filled(x, removed)
    for sample in range(2):
        for channel in range(3):
            expected = solved(x[sample, channel].double().numpy(), removed[sample, 0].numpy())
            np.testing.assert_allclose(whole[sample, channel], expected, atol=1e-4)


def test_road_is_the_difference_between_the_two_orders(model: nn.Module, engine: Engine) -> None:
    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    assert isinstance(found.values, Tensor)
    table = engine.evaluate(found, {"road": {"shares": (0.25, 0.5), "noise": 0.0}})
    for sample in range(2):
        order = np.argsort(-found.values[sample].abs().sum(0).flatten().numpy())
        means = []
        for ranking in (order, order[::-1]):
            scores = []
            for count in (36, 72):
                removed = np.zeros(144, bool)
                removed[ranking[:count]] = True
                holed = [solved(c.double().numpy(), removed.reshape(12, 12)) for c in x[sample]]
                with torch.no_grad():
                    picture = torch.tensor(np.stack(holed)[None], dtype=torch.float32)
                    scores.append(float(model(picture).softmax(1)[0, 2]))
            means.append(np.mean(scores))
        assert column(table, "saliency", "road")[sample] == pytest.approx(means[1] - means[0], abs=1e-4)


# -- randomisation and agreement ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["cascade", "independent"])
def test_randomisation_equals_a_copy_that_is_reset_by_hand(
    model: nn.Module, engine: Engine, order: str
) -> None:
    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    assert isinstance(found.values, Tensor)
    table = engine.evaluate(found, {"parameter_randomisation": {"steps": 4, "order": order}}, seed=3)
    private = copy.deepcopy(model)
    expected = []
    before = torch.get_rng_state()
    for number, layer in enumerate(["7", "3", "2", "0"]):
        if order == "independent":
            private = copy.deepcopy(model)
        torch.manual_seed(3 + number)
        private.get_submodule(layer).reset_parameters()
        leaf = x.clone().requires_grad_()
        gradient = torch.autograd.grad(private(leaf)[:, 2].sum(), leaf)[0]
        maps = [values.abs().sum(1).flatten(1).numpy() for values in (found.values, gradient)]
        expected.append([stats.spearmanr(a, b).statistic for a, b in zip(*maps, strict=True)])
    torch.set_rng_state(before)
    told = table.details["saliency"]["parameter_randomisation"]["steps"]
    assert [step["layer"] for step in told] == ["7", "3", "2", "0"]
    np.testing.assert_allclose([step["spearman_absolute"] for step in told], expected, atol=1e-4)
    np.testing.assert_allclose(
        column(table, "saliency", "parameter_randomisation"), np.mean(expected, 0), atol=1e-4
    )
    for name in CONTROLS:  # they look at nothing, so nothing changes them
        np.testing.assert_allclose(column(table, name, "parameter_randomisation"), 1)
        assert [step["layer"] for step in table.details[name]["parameter_randomisation"]["steps"]] == [
            step["layer"] for step in told
        ]
    # The axes take a pass, the target and the order of the layers that of a sample, then each step one;
    # controls none.
    assert (table.forward_passes, table.backward_passes) == (2 + 1 + 4 * 2, 4 * 2)


def test_sanity_says_in_words_that_a_map_without_the_network_fails(engine: Engine) -> None:
    found = engine.attribute(pictures(2), "saliency", target=2)
    verdict = engine.sanity(found)
    assert verdict.passes == (verdict.correlation < 0.5)
    assert len(verdict.steps) == 4
    assert verdict.steps[-1]["layers"] == 4
    assert not engine.sanity(found, threshold=-1.0).passes
    assert "hardly depends" in str(engine.sanity(found, threshold=-1.0))


def test_rank_correlation_is_that_of_scipy_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (5, 60)), rng.integers(0, 9, (5, 60)) + rng.random((5, 60)).round(1)
    found = spearman(torch.from_numpy(a).double(), torch.from_numpy(b).double())
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert float(spearman(torch.ones(1, 9), torch.rand(1, 9))) == 0


def test_structural_similarity_is_that_of_scikit_image() -> None:
    rng = np.random.RandomState(7)
    rng.randn(3, 1, 8, 8), rng.rand(3, 1, 8, 8), rng.randn(10, 64)  # as for the numbers of Quantus
    u = rng.rand(16, 16)
    v = 0.5 * u + 0.5 * rng.rand(16, 16)
    assert float(ssim(torch.from_numpy(u)[None], torch.from_numpy(v)[None])) == pytest.approx(
        0.74777940, abs=1e-6
    )


def test_agreement_is_the_mean_rank_correlation_with_the_other_methods(engine: Engine) -> None:
    x = pictures(2)
    maps = {
        "saliency": engine.attribute(x, "saliency", target=2),
        "times input": engine.attribute(x, "input_x_gradient", target=2),
        "paths": engine.attribute(x, "integrated_gradients", target=2, n_steps=4),
    }
    table = engine.evaluate(maps, "agreement")
    flat = {name: found.tensors[0].abs().sum(1).flatten(1).numpy() for name, found in maps.items()}
    for name, others in (("saliency", ["times input", "paths"]), ("paths", ["saliency", "times input"])):
        each = [
            [stats.spearmanr(flat[name][i], flat[other][i]).statistic for i in range(2)] for other in others
        ]
        np.testing.assert_allclose(column(table, name, "agreement"), np.mean(each, 0), atol=1e-6)
        assert table.agreement[name][others[0]] == pytest.approx(np.mean(each[0]), abs=1e-6)
    assert abs(table.agreement["saliency"]["random"]) < 0.2


# -- the table ----------------------------------------------------------------------------------------------


def test_the_controls_are_in_every_table(engine: Engine) -> None:
    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    mask = torch.zeros(2, 12, 12)
    mask[:, 3:9, 3:9] = 1
    table = engine.evaluate(found, list(engine.metrics()), mask)
    assert [row["name"] for row in table.rows] == ["saliency", *CONTROLS]
    assert [row["control"] for row in table.rows] == [False, True, True]
    for row in table.rows:
        for metric in engine.metrics():
            expected = metric != "completeness" and (metric != "agreement" or row["control"])
            assert (row[metric] is not None) == expected, (row["name"], metric)
    assert table.rows[2]["pointing_game"] == 1  # the middle lies in the mask
    assert table.rows[1]["mass_accuracy"] == pytest.approx(0.25, abs=0.05)
    text, html = str(table), table._repr_html_()
    assert "random" in text
    assert "deletion ↓" in text
    assert "center" in html
    assert "<script" not in html
    assert table.figure().get_axes()


def test_intervals_are_those_of_students_t(engine: Engine) -> None:
    found = engine.attribute(pictures(6), "saliency", target=2)
    table = engine.evaluate(found, {"deletion": {"steps": 4}})
    values = column(table, "saliency", "deletion")
    expected = stats.t.interval(0.95, 5, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(table.rows[0]["intervals"]["deletion"], expected, rtol=2e-3)
    alone = engine.evaluate(engine.attribute(pictures(1), "saliency"), "insertion")
    assert alone.rows[0]["intervals"]["insertion"] is None


def test_a_data_set_gives_what_its_batches_give_together(model: nn.Module, engine: Engine) -> None:
    x, y = pictures(5), torch.tensor([0, 1, 2, 1, 0])
    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    said: list[tuple[int, int]] = []

    def own(inputs: Tensor, target: Tensor) -> Tensor:
        leaf = inputs.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)[0]

    table = engine.evaluate(
        {"ours": "saliency", "with a layer": ("grad_cam", {"layer": "2"}), "own": own},
        {"deletion": {"steps": 4}},
        data=batches,
        progress=lambda done, total: said.append((done, total)),
    )
    whole = engine.evaluate(engine.attribute(x, "saliency", target=y), {"deletion": {"steps": 4}})
    assert said == [(1, 2), (2, 2)]
    np.testing.assert_allclose(
        column(table, "ours", "deletion"), column(whole, "saliency", "deletion"), rtol=1e-4
    )
    np.testing.assert_allclose(column(table, "own", "deletion"), column(table, "ours", "deletion"), rtol=1e-4)
    assert table.targets == y.tolist()
    assert table.rows[0]["samples"] == 5
    assert table.recomputed is not None
    assert 0 < table.recomputed.share <= 1
    assert table.recomputed.variants == 5 * 5 * len(table.rows)  # of every sample and row, five points
    of_class = table.by_class
    assert list(of_class) == [0, 1, 2]
    mean = column(table, "ours", "deletion")[[1, 3]].mean()
    assert of_class[1][0]["deletion"] == pytest.approx(mean)
    assert {row["name"] for row in of_class[1]} >= set(CONTROLS)


def test_tables_fill_up_and_can_be_cancelled(engine: Engine) -> None:
    found = engine.attribute(pictures(), "saliency")
    stream = engine.stream_evaluate(found, ["deletion", "insertion"])
    first = next(stream)
    assert 0 < first.progress < 1
    assert {row["name"] for row in first.rows} == {"saliency", *CONTROLS}
    assert "done" in str(first)
    closer = threading.Thread(target=stream.close)
    closer.start()
    with contextlib.suppress(Cancelled):
        for _ in stream:
            pass
    closer.join()
    with pytest.raises(StopIteration):
        next(stream)
    assert engine.evaluate(found, "deletion").progress == 1


def test_tokens_tables_and_series_have_positions_of_their_own() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.lstm = nn.LSTM(8, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.lstm(self.embed(tokens))[0][:, -1])

    torch.manual_seed(0)
    cases: list[tuple[nn.Module, Tensor, int]] = [
        (Words(), torch.randint(0, 20, (2, 7)), 7),
        (linear(), torch.randn(2, 12), 12),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 14, 3)), torch.randn(2, 2, 16), 16),
    ]
    metrics = ["deletion", "completeness", "infidelity", "sensitivity_max", "parameter_randomisation"]
    for model, x, positions in cases:
        with Engine(model) as engine:
            table = engine.evaluate(engine.attribute(x, "integrated_gradients", n_steps=2), metrics)
            steps, _ = table.curve_readings["deletion"]["integrated_gradients"]
            assert len(steps) == positions + 1
            told = {(row["control"], metric): row[metric] for row in table.rows for metric in metrics}
            assert [key for key, value in told.items() if value is None] == [(True, "completeness")]


def test_rows_of_one_method_are_named_by_the_options_in_which_they_differ(engine: Engine) -> None:
    x = pictures(2)

    def paths(**options: Any) -> Attribution:
        return engine.attribute(x, "integrated_gradients", target=2, **options)

    maps = [
        engine.attribute(x, "saliency", target=2),
        paths(n_steps=2),
        paths(n_steps=2, baselines="mean"),
        paths(n_steps=2, baselines=torch.zeros_like(x)),
        paths(n_steps=2, baselines="mean"),
    ]
    names = [row["name"] for row in engine.evaluate(maps, "agreement").rows]
    assert names == [
        "saliency",
        "integrated_gradients (baselines=zero)",
        "integrated_gradients (baselines=mean)",
        "integrated_gradients (baselines=…)",
        "integrated_gradients (baselines=mean), 2",
        *CONTROLS,
    ]
    alike = [row["name"] for row in engine.evaluate(maps[:1] * 2, "agreement").rows]
    assert alike == ["saliency", "saliency, 2", *CONTROLS]


def test_what_cannot_be_evaluated_says_so(engine: Engine) -> None:
    x = pictures(2)
    found = engine.attribute(x, "saliency", target=2)
    elsewhere = engine.attribute(x + 1, "saliency", target=2)
    other_class = engine.attribute(x, "saliency", target=1)
    layer = engine.attribute(x, "layer_integrated_gradients", layer="0", target=2, n_steps=2)
    for given, metrics, mask, message in (
        ([found, elsewhere], "deletion", None, "other inputs"),
        ([found, other_class], "deletion", None, "another target"),
        (layer, "deletion", None, "shape"),
        (found, "pointing_game", None, "no mask"),
        (found, "pointing_game", torch.ones(3, 3), "The mask has the shape"),
        (found, {"deletion": {"step": 3}}, None, "Did you mean 'steps'"),
        ({"random": found}, "deletion", None, "control"),
        ("saliency", "deletion", None, "Expected attributions"),
    ):
        with pytest.raises(InputError, match=message):
            engine.evaluate(given, metrics, mask)
    with pytest.raises(UnknownNameError, match="Did you mean 'deletion'"):
        engine.evaluate(found, "deletoin")
    assert issubclass(UnknownNameError, NNVizError)


# -- harmless -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_metric_leaves_a_trace_on_the_model(mode: str) -> None:
    torch.manual_seed(0)
    model = Careless()
    model(torch.randn(2, 3, 6, 6)).sum().backward()
    model.history.clear()
    model.train(mode == "train")
    x, mask = torch.randn(2, 3, 6, 6), torch.ones(2, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        found = engine.attribute(x, "saliency", target=1)
        table = engine.evaluate(found, list(engine.metrics()), mask)
        assert everything(model) == before
        assert table.rows[0]["parameter_randomisation"] is not None
        with engine.stream_evaluate(found, "parameter_randomisation") as stream:
            next(stream)
        assert everything(model) == before
    assert everything(model) == before


def test_a_model_that_cannot_be_copied_is_not_made_random() -> None:
    class Stubborn(nn.Sequential):
        def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
            raise TypeError("there is only one of me")

    torch.manual_seed(0)
    model = Stubborn(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    weights = [p.clone() for p in model.parameters()]
    with Engine(model) as engine:
        found = engine.attribute(torch.randn(2, 4), "saliency", target=0)
        with pytest.raises(InputError, match="copy of the model"):
            engine.evaluate(found, "parameter_randomisation")
        assert engine.evaluate(found, "deletion").rows
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_weights_that_move_meanwhile_are_told() -> None:
    model = linear()
    with Engine(model) as engine:
        found = engine.attribute(torch.randn(2, 12), "saliency", target=0)
        with torch.no_grad():
            model.weight.mul_(2)
        table = engine.evaluate(found, "deletion")
    assert any("weights have changed" in note for note in table.notes)
