"""The logit lens against final norm and head by hand, on language models and vision transformers."""

from __future__ import annotations

import pytest
import torch

import nnviz_widget as nnviz
import tests.torchvision_stub  # noqa: F401 - before torchvision
from nnviz_widget.errors import InputError


def hidden(model, blocks, run):
    """Return what each block gives, by plain hooks."""
    kept = []

    def keep(_, __, output):
        kept.append((output[0] if isinstance(output, tuple) else output).detach().clone())

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return kept


def test_gpt2_is_final_norm_and_head_on_every_block():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=4, n_head=2, n_embd=16, vocab_size=50, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.arange(6)[None]
    with nnviz.Engine(model) as engine, torch.no_grad():
        trace = engine.trace(input_ids=ids, use_cache=False)
        found = engine.logit_lens(trace)
        assert found.layers == tuple(f"transformer.h.{i}" for i in range(4))
        states = hidden(model, model.transformer.h, lambda: model(input_ids=ids, use_cache=False))
        for logits, state in zip(found.logits, states, strict=True):
            expected = model.lm_head(model.transformer.ln_f(state))
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.logits[-1], trace.output.logits, rtol=0, atol=0)


def test_llama_is_final_norm_and_head_on_every_block():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=3, num_attention_heads=2, hidden_size=16, intermediate_size=32, vocab_size=40
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.arange(5)[None]
    with nnviz.Engine(model) as engine, torch.no_grad():
        found = engine.logit_lens(engine.trace(input_ids=ids, use_cache=False))
        states = hidden(model, model.model.layers, lambda: model(input_ids=ids, use_cache=False))
        for logits, state in zip(found.logits, states, strict=True):
            torch.testing.assert_close(logits, model.lm_head(model.model.norm(state)), rtol=1e-5, atol=1e-5)


def test_a_vision_transformer_answers_from_its_class_token():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=7
    ).eval()
    torch.nn.init.normal_(model.heads.head.weight)
    x = torch.randn(2, 3, 32, 32)
    with nnviz.Engine(model) as engine, torch.no_grad():
        found = engine.logit_lens(engine.trace(x))
        states = hidden(model, model.encoder.layers, lambda: model(x))
        for logits, state in zip(found.logits, states, strict=True):
            expected = model.heads(model.encoder.ln(state)[:, 0])
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        indices, probabilities = found.top(3, temperature=2.0)
        expected = torch.softmax(found.logits / 2.0, -1)
        assert indices.shape == (3, 2, 3)
        torch.testing.assert_close(probabilities, expected.gather(-1, indices))
        assert not any(part._forward_hooks for part in model.modules())


def test_a_convolutional_network_has_no_lens():
    demo = nnviz.demo.shapes()
    with nnviz.Engine(demo.model) as engine, pytest.raises(InputError, match="blocks"):
        engine.logit_lens(engine.trace(demo.inputs[:1]))
