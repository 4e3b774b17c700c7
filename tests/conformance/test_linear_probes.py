"""Linear probes beside scikit-learn on activations that plain hooks read."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from nnviz_widget.demo import shapes
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.engine.linear_probes import Probe, fold_of, pool
from nnviz_widget.errors import InputError

L2 = 0.7
STAGES = {"text": None, "shapes": ["stem.relu", "stage2.0", "stage3.1", "head.classify"]}


@pytest.fixture(autouse=True)
def alone():
    """Threads that wait for each other take longer than these small sums."""
    with threadpool_limits(1):
        yield


def reference():
    """scikit-learn's own minimum of the same sum."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / L2, tol=1e-8, max_iter=20000))


@pytest.mark.parametrize(("samples", "features", "classes"), [(60, 5, 3), (40, 90, 4), (30, 8, 2)])
def test_a_fit_is_that_of_scikit_learn(samples, features, classes):
    generator = torch.Generator().manual_seed(samples)
    rows = torch.randn(samples, features, generator=generator, dtype=torch.float64) * 3 + 1
    rows[:, 2] = 4.0  # a channel that never changes
    labels = torch.randint(classes, (samples,), generator=generator) * 3 + 1
    rows[:, 0] += labels
    ours = Probe(rows, labels, l2=L2, token=CancelToken())
    theirs = reference().fit(rows.numpy(), labels.numpy())
    assert ours.classes.tolist() == theirs.classes_.tolist()
    new = torch.randn(50, features, generator=generator, dtype=torch.float64) * 4
    scores = torch.softmax(ours.scores(new), 1).numpy()
    if classes == 2:  # scikit-learn penalises one vector there, and not two of half its length
        theirs = make_pipeline(StandardScaler(), LogisticRegression(C=2 / L2, tol=1e-8, max_iter=20000))
        theirs.fit(rows.numpy(), labels.numpy())
    np.testing.assert_allclose(scores, theirs.predict_proba(new.numpy()), atol=2e-5)


class Sentences(nn.Module):
    """Tokens through one transformer layer; whole numbers go in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(12, 16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0) for _ in range(2)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def task(name):
    generator = torch.Generator().manual_seed(1)
    if name == "text":
        tokens = torch.randint(12, (48, 7), generator=generator)
        return Sentences().eval(), tokens, (tokens < 4).sum(1).clamp(1, 3)
    demo = shapes()
    inputs = torch.cat(
        [demo.inputs + 0.3 * torch.randn(demo.inputs.shape, generator=generator) for _ in "abc"]
    )
    return demo.model, inputs, demo.targets.repeat(3) // 2


def hooked(model, inputs, layers):
    """What each layer gives, pooled over all axes but its channels."""
    kept = {}
    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, out, layer=layer: kept.__setitem__(layer, out.detach().double())
        )
        for layer in layers
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return {
        layer: value.mean((2, 3)) if value.dim() == 4 else value.mean(1) if value.dim() == 3 else value
        for layer, value in kept.items()
    }


@pytest.mark.parametrize("name", ["shapes", "text"])
def test_accuracies_are_those_of_scikit_learn_on_the_same_folds(name):
    model, inputs, labels = task(name)
    before = copy.deepcopy(model.state_dict())
    with Engine(model) as engine:
        found = engine.linear_probes(inputs, labels, STAGES[name], folds=4, l2=L2, seed=2)
        again = engine.linear_probes(
            inputs, labels, found.layers, folds=4, l2=L2, seed=2, internal_batch_size=5
        )
    assert found.layers == (STAGES[name] or ["embedding", "layers.0", "layers.1", "head"])
    folds = fold_of(labels, 4, 2).numpy()
    features = hooked(model, inputs, found.layers)
    for at, layer in enumerate(found.layers):
        rows = features[layer].numpy()
        assert found.features[at] == rows.shape[1]
        told = np.full(len(labels), -1)
        fitted = []
        for fold in range(4):
            held = folds == fold
            probe = reference().fit(rows[~held], labels[~held].numpy())
            told[held] = probe.predict(rows[held])
            fitted.append(probe.score(rows[~held], labels[~held].numpy()))
        # A sample on the border may fall to either side: activations are float32.
        assert (found.predicted[at].numpy() != told).sum() <= 1
        assert found.accuracy[at] == pytest.approx((told == labels.numpy()).mean(), abs=1.5 / len(labels))
        assert found.fitted[at] == pytest.approx(np.mean(fitted), abs=0.02)
    assert (again.predicted != found.predicted).sum() <= 1
    assert found.chance == pytest.approx(float(labels.bincount().max()) / len(labels))
    assert float(found.accuracy.max()) > found.chance + 0.2
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert found.forward_passes < 3 * len(labels)


def test_folds_hold_every_sample_out_once_with_the_classes_even():
    labels = torch.tensor([0] * 10 + [1] * 5 + [7] * 5)
    folds = fold_of(labels, 5, 0)
    for fold in range(5):
        assert labels[folds == fold].bincount(minlength=8).tolist() == [2, 1, 0, 0, 0, 0, 0, 1]
    assert not torch.equal(folds, fold_of(labels, 5, 1))
    assert torch.equal(folds, fold_of(labels, 5, 0))


def test_pooling_takes_the_mean_over_everything_but_the_channels():
    value = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(pool(value, 1), value.double().mean((2, 3)))
    torch.testing.assert_close(pool(value[..., 0], -1), value[..., 0].double().mean(1))
    torch.testing.assert_close(pool(value[:, :, 0, 0], 1), value[:, :, 0, 0].double())


def test_a_stream_fills_up_and_stops_when_it_is_closed():
    model, inputs, labels = task("shapes")
    with Engine(model) as engine:
        with engine.stream_linear_probes(inputs, labels, folds=3) as stream:
            parts = list(stream)
        known = [int((~part.accuracy.isnan()).sum()) for part in parts]
        assert known == sorted(known)
        assert known[0] == 0
        assert known[-1] == len(parts[-1].layers)
        assert [part.progress for part in parts] == sorted(part.progress for part in parts)
        assert parts[-1].progress == 1
        whole = engine.linear_probes(inputs, labels, folds=3)
        assert torch.equal(whole.predicted, parts[-1].predicted)
        stream = engine.stream_linear_probes(inputs, labels)
        next(stream)
        stream.close()
        assert list(stream) == []
        text, html = str(whole), whole._repr_html_()
        assert "48 samples" in text
        assert all(layer in text and layer in html for layer in whole.layers)


def test_what_is_known_of_a_layer_depends_on_the_interventions():
    model, inputs, labels = task("shapes")
    with Engine(model) as engine, engine.intervene("stem.conv", "ablate"):
        found = engine.linear_probes(inputs, labels, ["stem.conv"])
    assert float(found.accuracy[0]) <= found.chance


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        ([0, 1], {}),
        ([0] * 48, {}),
        ([0.5] * 48, {}),
        ("many", {}),
        (None, {"folds": 1}),
        (None, {"l2": 0}),
        (None, {"layers": ["nowhere"]}),
    ],
)
def test_what_does_not_fit_is_refused(wrong, options):
    model, inputs, labels = task("shapes")
    with Engine(model) as engine:
        with pytest.raises(InputError):
            engine.linear_probes(inputs, labels if wrong is None else wrong, **options)
        assert engine.linear_probes(inputs, labels, ["head.classify"]).progress == 1
