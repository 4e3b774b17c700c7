"""Models of today's libraries that nothing was written for: what must hold for every graph holds for them.

Small ones with random weights. The checks are those of `test_architectures`; beside them stands how often the
block of each network repeats, as its configuration says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from tests.conformance.test_architectures import checked, folds, merges
from tests.models import image, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.graph import Graph

WIDTHS = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
LAYERS = {**WIDTHS, "num_hidden_layers": 2}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SPEECH = {"conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16}


def tokens(length: int = 12) -> Tensor:
    return torch.randint(3, 90, (1, length), generator=torch.Generator().manual_seed(0))


def hugging_face(name: str, **settings: Any) -> nn.Module:
    """Build a model of transformers; its configuration is named as its family."""
    transformers = pytest.importorskip("transformers")
    family = name.partition("For")[0].removesuffix("Model")
    return seeded(lambda: getattr(transformers, name)(getattr(transformers, f"{family}Config")(**settings)))


def distilbert() -> Graph:
    model = hugging_face(
        "DistilBertForSequenceClassification", vocab_size=100, dim=32, n_layers=3, n_heads=2, hidden_dim=64
    )
    return checked(model, tokens())


def vit() -> Graph:
    model = hugging_face("ViTForImageClassification", **LAYERS, image_size=32, patch_size=8)
    return checked(model, image(1, 32))


def segformer() -> Graph:
    model = hugging_face(
        "SegformerForSemanticSegmentation",
        depths=[1, 2, 1, 1],
        hidden_sizes=[8, 16, 16, 16],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
    )
    return checked(model, image(1, 64))


def mixtral() -> Graph:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return checked(hugging_face("MixtralForCausalLM", vocab_size=100, **LAYERS, **experts), tokens())


def mamba() -> Graph:
    model = hugging_face(
        "MambaForCausalLM", vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    return checked(model, tokens())


def video() -> Graph:
    vision = pytest.importorskip("torchvision.models.video")
    clip = image(4, 32).permute(1, 0, 2, 3)[None]
    return checked(seeded(lambda: vision.r3d_18(weights=None)), clip)


@pytest.mark.parametrize(
    ("draw", "block", "times"),
    [
        (distilbert, "TransformerBlock", [3]),
        (vit, "ViTLayer", [2]),
        (segformer, "SegformerLayer", [1, 2, 1, 1]),
        (mixtral, "MixtralDecoderLayer", [2]),
        (mamba, "MambaBlock", [2]),
        (video, "BasicBlock", [2, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_what_holds_for_every_graph_holds_for_them(
    draw: Callable[[], Graph], block: str, times: list[int]
) -> None:
    assert folds(draw(), block) == times


def test_clip_compares_a_text_with_images() -> None:
    text = {**LAYERS, "vocab_size": 100, "max_position_embeddings": 20, "eos_token_id": 2, "pad_token_id": 0}
    model = hugging_face(
        "CLIPModel",
        text_config=text,
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    graph = checked(model, input_ids=tokens(), pixel_values=image(2, 32))
    assert folds(graph, "CLIPEncoderLayer") == [2, 2]
    products = [node for node in merges(graph) if node.op == "matmul" and node.parent == ""]
    assert [node.output_shapes for node in products] == [[(1, 2)]]


def test_whisper_listens_in_every_layer_of_its_decoder() -> None:
    model = hugging_face(
        "WhisperForConditionalGeneration",
        **HEADS,
        vocab_size=100,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    sound = rows(1, 8 * 40).reshape(1, 8, 40)
    graph = checked(model, input_features=sound, decoder_input_ids=tokens(5))
    assert folds(graph, "WhisperEncoderLayer") == [2]
    assert folds(graph, "WhisperDecoderLayer") == [2]
    heard = {edge.target for edge in graph.edges if edge.source == "model.encoder.layer_norm"}
    for number in range(2):
        attention = f"model.decoder.layers.{number}.encoder_attn"
        assert heard >= {f"{attention}.k_proj", f"{attention}.v_proj"}


def test_detr_asks_with_learned_queries() -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    model = hugging_face(
        "DetrForObjectDetection",
        **HEADS,
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
    )
    graph = checked(model, image(1, 64))
    assert folds(graph, "DetrEncoderLayer") == [2]
    assert folds(graph, "DetrDecoderLayer") == [2]
    outputs = {node.id: node.output_shapes[0] for node in graph.nodes if node.kind == "output"}
    assert outputs["output:pred_boxes"] == (1, 5, 4)


def test_wav2vec2_counts_the_parameters_that_have_a_gradient() -> None:
    model = hugging_face("Wav2Vec2Model", **LAYERS, **SPEECH, num_conv_pos_embedding_groups=4)
    sound = rows(1, 4000)
    graph = record(model, (sound,)).graph
    score = sum(tensor.pow(2).sum() for _, tensor in tensors_of(model(sound)))
    gradients = torch.autograd.grad(score, list(model.parameters()), allow_unused=True)
    used = [gradient.numel() for gradient in gradients if gradient is not None]
    assert sum(node.params for node in graph.nodes) == sum(used) < graph[""].params
    assert folds(graph, "Wav2Vec2EncoderLayer") == [2]
