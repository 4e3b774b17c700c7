"""Interventions equal plain forward hooks on a copy of the model, and leave nothing behind."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.engine.patching import blocks
from nnviz_widget.engine.sites import heads_of
from nnviz_widget.errors import InputError, UnknownLayerError, UnknownNameError
from tests.conformance.test_harmless import everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


class Words(nn.Module):
    """A small transformer of torch's own layers."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)
        self.batch_first = batch_first

    def forward(self, words: Tensor) -> Any:
        hidden: Tensor = self.embed(words)
        hidden = hidden if self.batch_first else hidden.transpose(0, 1)
        hidden = self.encoder(hidden)
        return self.head((hidden if self.batch_first else hidden.transpose(0, 1))[:, 0])


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(3))


def hooked(model: nn.Module, changes: dict[str, Callable[[Tensor], Tensor]], *args: Any) -> Any:
    """The reference: a copy of the model with plain hooks."""
    other = copy.deepcopy(model)
    for path, change in changes.items():
        other.get_submodule(path).register_forward_hook(lambda _, __, out, change=change: change(out.clone()))
    with torch.no_grad():
        return other(*(arg.clone() for arg in args))


@pytest.fixture
def model() -> nn.Module:
    return network()


@pytest.fixture
def engine(model: nn.Module) -> Iterator[Engine]:
    with Engine(model) as engine:
        yield engine


def put(*index: Any, value: Any) -> Callable[[Tensor], Tensor]:
    def change(out: Tensor) -> Tensor:
        out[(slice(None), *index)] = value(out) if callable(value) else value
        return out

    return change


CASES: list[tuple[str, dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ("ablate", {}, put(value=0.0)),
    ("ablate", {"channel": 3}, put(3, value=0.0)),
    ("ablate", {"channel": [1, 5]}, put([1, 5], value=0.0)),
    ("ablate", {"unit": (2, 1, 4)}, put(2, 1, 4, value=0.0)),
    ("ablate", {"channel": 3, "value": "mean"}, put(3, value=lambda out: out[:, 3].mean())),
    ("ablate", {"position": (1, 2)}, put(slice(None), 1, 2, value=0.0)),
    ("scale", {"channel": 2, "factor": -1.5}, put(2, value=lambda out: out[:, 2] * -1.5)),
    ("clamp", {"low": -0.1, "high": 0.2}, lambda out: out.clamp(-0.1, 0.2)),
    ("clamp", {"channel": 0, "high": 0.0}, put(0, value=lambda out: out[:, 0].clamp(max=0))),
    ("replace", {"channel": 4, "value": 0.7}, put(4, value=0.7)),
    ("replace", {"channel": 4, "value": torch.arange(6.0)}, put(4, value=torch.arange(6.0))),
]


@pytest.mark.parametrize(("kind", "options", "change"), CASES)
def test_each_kind_is_what_a_hook_does_on_every_road(model, engine, kind, options, change):
    x = pictures()
    expected = hooked(model, {"2": change}, x)
    graph = engine.trace(x).graph.to_dict()
    with engine.intervene("2", kind, **options):
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, expected, **CLOSE)
        torch.testing.assert_close(engine.output(x), expected, **CLOSE)
        with torch.no_grad():
            torch.testing.assert_close(trace.activation("2"), change(model[:3](x).clone()), **CLOSE)
        assert trace.graph.to_dict() == graph
    torch.testing.assert_close(engine.trace(x).output, model(x).detach(), rtol=0, atol=0)


def test_gradients_are_those_of_the_changed_network(model, engine):
    x = pictures()
    other = copy.deepcopy(model)
    other[2].register_forward_hook(lambda _, __, out: put(3, value=0.0)(out.clone()))
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(other(leaf)[:, 1].sum(), leaf)[0]
    plain = x.clone().requires_grad_()
    without = torch.autograd.grad(model(plain)[:, 1].sum(), plain)[0]
    before = engine.trace(x)
    with engine.intervene("2", channel=3):
        found = engine.attribute(x, "saliency", target=1).values
        torch.testing.assert_close(found.abs(), expected.abs(), **CLOSE)
        unit = engine.unit_saliency(before, "7", unit=1)
        torch.testing.assert_close(unit[0], expected[0], **CLOSE)
        assert not engine.unit_saliency(engine.trace(x), "2", unit=(3, 1, 1)).any()
    torch.testing.assert_close(engine.unit_saliency(before, "7", unit=1)[0], without[0], **CLOSE)


def test_blocks_nest_and_the_outer_change_is_made_first(model, engine):
    x = pictures()
    both = hooked(model, {"2": lambda out: put(3, value=1.0)(out) * 2, "0": put(1, value=0.0)}, x)
    with engine.intervene("2", "replace", channel=3, value=1.0), engine.intervene("2", "scale", factor=2):
        with engine.intervene(model[0], "ablate", channel=1):
            torch.testing.assert_close(engine.output(x), both, **CLOSE)
        inner = hooked(model, {"2": lambda out: put(3, value=1.0)(out) * 2}, x)
        torch.testing.assert_close(engine.output(x), inner, **CLOSE)
    torch.testing.assert_close(engine.output(x), model(x).detach(), **CLOSE)


def test_the_model_is_as_it_was_after_a_block_and_after_an_exception(model, engine):
    x, before = pictures(), everything(model)
    with pytest.raises(RuntimeError, match="mine"), engine.intervene("2", "scale", factor=3):  # noqa: PT012
        engine.trace(x)
        engine.knock_outs(x, "2", target=1)
        raise RuntimeError("mine")
    with engine.intervene("2", channel=99), pytest.raises(InputError, match="outside"):
        engine.output(x)
    with engine.intervene("2", channel=99), pytest.raises(InputError, match="outside"):
        engine.trace(x)
    assert everything(model) == before
    torch.testing.assert_close(engine.output(x), model(x).detach(), rtol=0, atol=0)


def test_other_engines_and_other_threads_see_the_network_as_it_is(model, engine):
    x = pictures()
    plain = model(x).detach()
    seen: list[Tensor] = []
    with Engine(model) as other, engine.intervene("2"):
        assert not torch.allclose(engine.output(x), plain)
        torch.testing.assert_close(other.output(x), plain, **CLOSE)
        thread = threading.Thread(target=lambda: seen.append(engine.output(x)))
        thread.start()
        thread.join()
        torch.testing.assert_close(seen[0], plain, **CLOSE)


def test_a_stream_belongs_to_the_block_that_it_was_asked_in(model, engine):
    x = pictures()
    with engine.intervene("2", channel=3):
        stream = engine.stream(x, "saliency", target=1)
        inside = engine.attribute(x, "saliency", target=1).values
    torch.testing.assert_close(stream.result().values, inside, **CLOSE)


def test_a_let_go_activation_comes_back_with_the_changes_of_its_trace(model, engine):
    x = pictures()
    engine.memory_budget = 1000
    with engine.intervene("0", "scale", factor=3):
        trace = engine.trace(x)
    with torch.no_grad():
        torch.testing.assert_close(trace.activation("0"), 3 * model[0](x), **CLOSE)


def test_patches_come_from_a_trace_or_from_inputs(model, engine):
    a, b = pictures(2).split(1)
    with torch.no_grad():
        value = model[:3](b)
    expected = hooked(model, {"2": put([1, 5], value=value[:, [1, 5]])}, a)
    trace = engine.trace(b)
    for source in (trace, b):
        with engine.intervene("2", "patch", channel=[1, 5], source=source):
            torch.testing.assert_close(engine.output(a), expected, **CLOSE)
    with engine.intervene("2", "ablate"), engine.intervene("2", "patch", source=b):  # of the network as it is
        torch.testing.assert_close(engine.output(a), model(b).detach(), **CLOSE)
    with engine.intervene("2", "patch", source=pictures(3)), pytest.raises(InputError, match="same shape"):
        engine.output(pictures(2))


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_of_torch_are_changed_before_they_are_mixed(batch_first):
    model = Words(batch_first=batch_first).eval()
    words = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(0))
    path = "encoder.layers.1.self_attn"
    other = copy.deepcopy(model)
    with torch.no_grad():  # what head 2 gives reaches the output through these columns alone
        other.get_submodule(path).out_proj.weight[:, 8:12] = 0
        expected = other(words)
    with Engine(model) as engine:
        for layer in (path, "encoder.layers.1"):
            with engine.intervene(layer, "ablate", head=2):
                torch.testing.assert_close(engine.output(words), expected, **CLOSE)
                torch.testing.assert_close(engine.trace(words).output, expected, **CLOSE)
        with engine.intervene(path, "scale", head=[0, 3], factor=1.0):
            torch.testing.assert_close(engine.output(words), model(words).detach(), **CLOSE)
        ranked = engine.knock_outs(words, path, heads=True, target=1)
        assert ranked.effect(2) == pytest.approx(
            float((model(words).detach() - expected)[:, 1].mean()), abs=1e-6
        )
        with pytest.raises(InputError, match="has 4"):
            engine.intervene(path, head=4)


def families() -> list[Any]:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    gpt = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 16}
    return [
        (transformers.BertModel(transformers.BertConfig(vocab_size=50, **small)), "encoder.layer.1.attention",
         "encoder.layer.1.attention.output.dense"),
        (transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt)), "transformer.h.1.attn",
         "transformer.h.1.attn.c_proj"),
        (transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **small)),
         "model.layers.1.self_attn", "model.layers.1.self_attn.o_proj"),
    ]  # fmt: skip


@pytest.mark.parametrize("which", [0, 1, 2])
def test_heads_of_transformers_are_found_behind_their_projection(which):
    model, path, projection = families()[which]
    model = model.eval()
    words = torch.randint(0, 50, (1, 6), generator=torch.Generator().manual_seed(2))
    assert heads_of(dict(model.named_modules()), path).path == projection

    def silence(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        value = args[0].clone()
        value[..., 6:12] = 0
        return (value,)

    other = copy.deepcopy(model)
    other.get_submodule(projection).register_forward_pre_hook(silence)
    with torch.no_grad():
        expected = other(words)[0]
    with Engine(model) as engine, engine.intervene(path, head=1):
        torch.testing.assert_close(engine.output(words)[0], expected, **CLOSE)
        torch.testing.assert_close(engine.trace(words).output[0], expected, **CLOSE)


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_knock_outs_are_a_plain_loop_of_hooks(model, engine, value):
    x = pictures(3)
    with torch.no_grad():
        plain, layer = model(x), model[:3](x)
    found = engine.knock_outs(x, "2", target=[1, 0, 2], value=value)
    assert found.progress == 1
    for channel in range(8):
        instead = layer[:, channel].mean() if value == "mean" else 0.0
        knocked = hooked(model, {"2": put(channel, value=instead)}, x)
        rows = torch.arange(3)
        lost = (plain - knocked)[rows, [1, 0, 2]].mean()
        shares = (plain.softmax(1) - knocked.softmax(1))[rows, [1, 0, 2]].mean()
        assert found.effect(channel) == pytest.approx(float(lost), abs=1e-6)
        at = int((found.channels == channel).nonzero())
        assert float(found.probabilities[at]) == pytest.approx(float(shares), abs=1e-6)
    assert found.ranking == sorted(range(8), key=lambda c: -found.effect(c))


class Past(nn.Module):
    """What runs past the layer is added, joined, or counted."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.LazyLinear(3)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        past = self.stem(x).relu()
        inside = self.conv(past).relu()
        if self.how == "add":
            joined = inside + past
        elif self.how == "cat":
            joined = torch.cat([inside, past], 1)
        else:
            joined = inside
        return self.head(joined.reshape(len(x), -1))


@pytest.mark.parametrize("how", ["add", "cat", "view"])
def test_what_runs_past_the_layer_is_that_of_the_sample(how):
    model, x = Past(how), pictures(1)
    model(x)
    model.eval()
    with Engine(model) as engine:
        found = engine.knock_outs(x, "conv", target=1)
    for channel in range(4):
        lost = (model(x).detach() - hooked(model, {"conv": put(channel, value=0.0)}, x))[0, 1]
        assert found.effect(channel) == pytest.approx(float(lost), abs=1e-6)


def test_knock_outs_do_not_depend_on_the_chunk_and_fill_up(engine):
    x = pictures(2)
    whole = engine.knock_outs(x, "2", target=1)
    parts = list(engine.stream_knock_outs(x, "2", target=1, perturbations_per_eval=4))
    assert [len(part.channels) for part in parts] == [2, 4, 6, 8]
    torch.testing.assert_close(parts[-1].effects, whole.effects, **CLOSE)
    some = engine.knock_outs(x, "2", target=1, channels=[5, 2])
    assert sorted(some.channels.tolist()) == [2, 5]
    assert some.effect(5) == pytest.approx(whole.effect(5), abs=1e-6)
    stream = engine.stream_knock_outs(x, "2", target=1, perturbations_per_eval=2)
    next(stream)
    stream.close()
    with pytest.raises((Cancelled, StopIteration)):
        next(stream)


def test_patch_effects_are_the_normalised_difference_of_the_logits(model, engine):
    clean, corrupted = pictures(2).split(1)
    with torch.no_grad():
        value = model[:3](clean)
        high, low = model(clean)[0], model(corrupted)[0]
    yes, no = int(high.argmax()), int(low.argmax())

    def score(logits: Tensor) -> float:
        return float(logits[yes] - logits[no] if yes != no else logits[yes])

    for each, indices in {
        "layer": [()],
        "channel": [(c,) for c in range(8)],
        "position": [(slice(None), slice(y, y + 2), slice(x, x + 2)) for y in (0, 2, 4) for x in (0, 2, 4)],
    }.items():
        found = engine.patch_effects(clean, corrupted, layers=["2"], each=each, grid=3)
        assert found.target == ((yes, no) if yes != no else yes)
        for index, effect in zip(indices, found.effects["2"].reshape(-1).tolist(), strict=True):
            patched = hooked(model, {"2": put(*index, value=value[(slice(None), *index)])}, corrupted)[0]
            expected = (score(patched) - score(low)) / (score(high) - score(low))
            assert effect == pytest.approx(expected, abs=1e-4)


def test_causal_tracing_of_a_text_goes_over_layers_and_positions():
    model = Words(batch_first=True).eval()
    clean, corrupted = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(4)).split(1)
    with Engine(model) as engine:
        parts = list(engine.stream_patch_effects(clean, corrupted, each="position", target=1))
        found = parts[-1]
        assert found.layers == ["embed", "encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]
        assert found.matrix().shape == (4, 7)
        # Only the first token of the last layer is read.
        torch.testing.assert_close(found.effects["encoder.layers.2"], torch.eye(7)[0], rtol=0, atol=1e-4)
        assert parts[0].matrix().isnan().any()
        whole = engine.patch_effects(clean, corrupted, target=1)
        assert all(float(effect) == pytest.approx(1, abs=1e-4) for effect in list(whole.effects.values())[:4])
        heads = engine.patch_effects(clean, corrupted, each="head", target=1)
        assert heads.matrix().shape == (3, 4)
        with engine.intervene("encoder.layers.2", "patch", head=1, source=clean):
            patched = float(engine.output(corrupted)[0, 1])
        effect = (patched - heads.corrupted) / (heads.clean - heads.corrupted)
        assert float(heads.effects["encoder.layers.2.self_attn#heads"][1]) == pytest.approx(effect, abs=1e-4)
    with Engine(model) as engine, pytest.raises(InputError, match="same shape"):
        engine.patch_effects(clean, torch.zeros(1, 5, dtype=torch.long))


def test_blocks_are_stacks_taken_apart():
    assert blocks(Words(batch_first=True))[:2] == ["embed", "encoder.layers.0"]
    assert blocks(network()) == [str(i) for i in range(8)]


def test_the_python_of_an_intervention_makes_it_again(engine):
    with engine.intervene("2", "scale", channel=3, factor=0.5) as made:
        assert str(made) == 'engine.intervene("2", "scale", channel=3, factor=0.5)'
        again = eval(str(made))
    with again as other:
        assert (other.site, other.options) == (made.site, made.options)


@pytest.mark.parametrize(
    ("args", "options", "error", "words"),
    [
        (("nix",), {}, UnknownLayerError, "no module"),
        (("2", "ablat"), {}, UnknownNameError, "Did you mean 'ablate'"),
        (("2", "scale"), {}, InputError, "needs factor"),
        (("2", "scale"), {"faktor": 2}, InputError, "Did you mean 'factor'"),
        (("2", "clamp"), {"low": 2, "high": 1}, InputError, "above"),
        (("2", "ablate"), {"channel": -1}, InputError, "channel=-1"),
        (("2", "ablate"), {"channel": 1, "unit": (1, 2, 3)}, InputError, "different parts"),
        (("2", "ablate"), {"head": 1}, InputError, "no heads"),
        (("2", "replace"), {"value": "x"}, InputError, "number or a tensor"),
    ],
)
def test_what_does_not_fit_is_said_at_once(engine, args, options, error, words):
    with pytest.raises(error, match=words):
        engine.intervene(*args, **options)


class Sums(nn.Module):
    """Two branches that a function adds: the sum is what the module gives, or goes on inside of it."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x) + self.two(x)
        return self.last(y) + y if self.after else y


@pytest.mark.parametrize("after", [False, True])
def test_an_operation_is_changed_where_a_module_gives_what_it_gives(after):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Sums(after=after), Sums(after=after), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    with Engine(model) as engine:
        trace = engine.trace(x)
        sums = [node.id for node in trace.graph.nodes if node.op == "add" and node.parent == "1"]
        with engine.intervene(sums[-1], "scale", factor=3.0, channel=1) as made:
            found = engine.output(x)
        assert str(made).startswith('engine.intervene("1", "scale"')

        def three(out):
            out[:, 1] *= 3
            return out

        torch.testing.assert_close(found, hooked(model, {"1": three}, x), **CLOSE)
        if after:
            with pytest.raises(UnknownLayerError, match=r"'1\.last' or '1', or make it a module"):
                engine.intervene(sums[0], "ablate")
