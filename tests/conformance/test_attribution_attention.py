"""Attention equals what transformers tell of themselves, whichever way they compute it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnviz_widget.engine.attribution.attention import Attentions
from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError, UnknownLayerError
from tests.conformance.test_harmless import Careless, everything
from tests.explained import apart, case
from tests.models import TinyVit, image, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Iterator

transformers = pytest.importorskip("transformers")


def told_by_the_layers(model: TinyVit, x: Tensor) -> list[Tensor]:
    """The weights of each layer, ``[N, heads, T, T]``, by asking each of its parts by hand."""
    with torch.no_grad():
        h = model.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([model.token.expand(len(h), -1, -1), h], 1) + model.position
        found = []
        for layer in model.encoder.layers:
            found.append(layer.self_attn(h, h, h, need_weights=True, average_attn_weights=False)[1])
            h = layer(h)
    return found


@pytest.fixture
def vit() -> TinyVit:
    return seeded(TinyVit)


@pytest.fixture
def engine(vit: TinyVit) -> Iterator[Engine]:
    with Engine(vit) as engine:
        yield engine


def on_grid(row: Tensor) -> Tensor:
    """Weights of 17 tokens as a map: without the class token, in rows of four."""
    return row[:, 1:].reshape(-1, 1, 4, 4)


def test_attention_is_what_multi_head_attention_tells(vit: TinyVit, engine: Engine) -> None:
    x = image(2, 16)
    first, last = told_by_the_layers(vit, x)
    found = engine.attribute(x, "attention")
    assert apart(found.layer_values, on_grid(last.mean(1)[:, 0])) <= 1e-5
    assert found.options["query"] == 0  # the class token
    assert found.target is None
    assert (found.forward_passes, found.backward_passes) == (4, 0)  # one of them to learn the layout
    enlarged = F.interpolate(found.layer_values, size=(16, 16), mode="bilinear").expand_as(x)
    assert torch.equal(found.values, enlarged)
    for options, row in (
        ({"layer": 0}, first.mean(1)[:, 0]),
        ({"layer": -2, "head": 1}, first[:, 1, 0]),
        ({"layer": "encoder.layers.0"}, first.mean(1)[:, 0]),
        ({"layer": "encoder.layers.1.self_attn", "query": 5}, last.mean(1)[:, 5]),
        ({"query": "mean"}, last.mean((1, 2))),
    ):
        assert apart(engine.attribute(x, "attention", **options).layer_values, on_grid(row)) <= 1e-5


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_rollout_multiplies_the_layers(vit: TinyVit, engine: Engine, fusion: str) -> None:
    x = image(2, 16)
    found = engine.attribute(x, "attention_rollout", head_fusion=fusion)
    for row, weights in enumerate(zip(*told_by_the_layers(vit, x), strict=True)):
        rolled = torch.eye(17)
        for layer in weights:
            fused = {"mean": layer.mean(0), "max": layer.amax(0), "min": layer.amin(0)}[fusion]
            mixed = 0.5 * fused + 0.5 * torch.eye(17)
            rolled = (mixed / mixed.sum(1, keepdim=True)) @ rolled
        assert apart(found.layer_values[row], on_grid(rolled[:1])[0]) <= 1e-5
        assert rolled.sum(1).allclose(torch.ones(17))


def hugging_face(name: str, implementation: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "hidden_size": 16}
    ids = torch.randint(0, 50, (2, 6))
    if name == "vit":
        config = transformers.ViTConfig(image_size=16, patch_size=4, **small)
        kind, inputs = transformers.ViTForImageClassification, image(2, 16)
    elif name == "bert":
        config = transformers.BertConfig(vocab_size=50, **small)
        mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
        kind, inputs = transformers.BertForSequenceClassification, {"input_ids": ids, "attention_mask": mask}
    else:
        config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=1, **small)
        kind, inputs = transformers.LlamaForCausalLM, ids
    return kind._from_config(config, attn_implementation=implementation).eval(), inputs


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_attention_is_what_hugging_face_tells(name: str, implementation: str) -> None:
    model, inputs = hugging_face(name, implementation)
    eager, _ = hugging_face(name, "eager")
    with torch.no_grad():
        asked = inputs if isinstance(inputs, dict) else None
        output = eager(**asked, output_attentions=True) if asked else eager(inputs, output_attentions=True)
    for layer in (0, 1):
        weights = output.attentions[layer].mean(1)
        with Engine(model) as engine:
            found = engine.attribute(inputs, "attention", layer=layer)
        if name == "vit":
            assert apart(found.layer_values, on_grid(weights[:, 0])) <= 1e-5
        else:
            row = weights.mean(1) if name == "bert" else weights[:, -1]  # each sees only those before it
            assert apart(found.layer_values[:, 0], row) <= 1e-5
            assert found.values.shape == (2, 6, 16)
            assert apart(found.values, row[:, :, None].expand(2, 6, 16)) <= 1e-5
        assert found.options["query"] == {"vit": 0, "bert": "mean", "llama": 5}[name]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(5, 5) > 0.3},
        {"attn_mask": torch.randn(5, 5)},
        {"enable_gqa": True},
    ],
)
def test_the_weights_are_those_that_scaled_dot_product_attention_uses(options: dict[str, Any]) -> None:
    query, key, value = (torch.randn(2, heads, 5, 4) for heads in (4, 4, 4))
    if options.get("enable_gqa"):
        key, value = key[:, :2], value[:, :2]
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    with Attentions(2) as caught:
        output = F.scaled_dot_product_attention(query, key, value, **options)
    repeated = value.repeat_interleave(2, 1) if options.get("enable_gqa") else value
    assert torch.equal(output, expected)
    assert (caught.weights[0] @ repeated - expected).abs().max() <= 1e-6


def test_attention_inside_windows_is_left_out_and_told() -> None:
    model = vision("swin_t")
    with Engine(model) as engine:
        found = engine.attribute(image(1, 224), "attention")  # the last stage is one window
        assert found.layer_values.shape == (1, 1, 7, 7)
        assert any("inside windows" in text for text in found.cautions)
        with pytest.raises(InputError, match="no attention"):
            engine.attribute(image(1, 64), "attention")  # its window is filled up with padding


def test_what_does_not_fit_raises(engine: Engine) -> None:
    x = image(1, 16)
    for options, text in (
        ({"layer": 2}, "layer=2"),
        ({"layer": "patches"}, "computes no attention"),
        ({"head": 2}, "head=2"),
        ({"query": 17}, "query=17"),
    ):
        with pytest.raises(InputError, match=text):
            engine.attribute(x, "attention", **options)
    with pytest.raises(InputError, match="head_fusion"):
        engine.attribute(x, "attention_rollout", head_fusion="median")
    with pytest.raises(UnknownLayerError):
        engine.attribute(x, "attention", layer="encoder.layer.0")
    c = case("vgg")
    with Engine(c.model) as other, pytest.raises(InputError, match="for transformers"):
        other.attribute(c.inputs, "attention_rollout")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("method", "options"),
    [("attention", {}), ("attention", {"layer": "encoder"}), ("attention_rollout", {})],
)
def test_nothing_of_the_model_is_touched(mode: str, method: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        engine.attribute(x, method, **options)
        assert everything(model) == before
    assert everything(model) == before
