"""Graphs of real architectures against what independent means say about them.

For every model: each call of a leaf module is there, with the shapes that a plain hook saw; parameters are
those of the model and operations those that torch counts; tensors carry shapes on every edge; each output
hangs on an input. What is special about an architecture (how many branches meet, what folds) is written out
by hand.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from tests import models
from tests.models import image, seeded, vision

if TYPE_CHECKING:
    from nnviz_widget.engine.graph import Graph, Node


# -- what holds for every model -----------------------------------------------------------------------------


class Seen:
    """A plain run under hooks and torch's own counter: what the graph is compared with."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        #: Shapes that each call of a module without parts gave, by the id of its node.
        self.calls: dict[str, list[tuple[int, ...]]] = {}
        self.used: dict[int, int] = {}
        counts: Counter[str] = Counter()
        names = {id(module): name for name, module in model.named_modules()}

        def hook(module: nn.Module, _: Any, output: Any) -> None:
            for parameter in module.parameters():
                self.used[id(parameter)] = parameter.numel()
            if not module._modules and names[id(module)]:
                name = names[id(module)]
                call = f"{name}@{counts[name]}" if counts[name] else name
                counts[name] += 1
                self.calls[call] = [tuple(tensor.shape) for _, tensor in tensors_of(output)]

        handles = [module.register_forward_hook(hook) for module in model.modules() if module is not model]
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it counts nothing, nor do the fused kernels
        kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        try:
            recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
            # The fused recurrent kernels are not counted either.
            plain = torch.backends.mkldnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
            with torch.no_grad(), kernel, plain, FlopCounterMode(display=False) as counter:
                self.output = model(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in handles:
                handle.remove()
        self.flops = counter.get_total_flops()
        self.used.update({id(parameter): parameter.numel() for parameter in model._parameters.values()
                          if parameter is not None})  # fmt: skip


def checked(model: nn.Module, *args: Any, **kwargs: Any) -> Graph:
    """Record a model, check what must hold for each of them, and return its graph."""
    graph = record(model, args, kwargs).graph
    seen = Seen(model, args, kwargs)
    items = {item.id: item for item in graph}
    nodes = {node.id: node for node in graph.nodes}
    assert len(items) == len(graph.nodes) + len(graph.groups)

    # Every call of a leaf is a node of its own, or a group where its forward is the user's own code.
    assert [name for name in seen.calls if name not in items] == []
    for name, shapes in seen.calls.items():
        if name in nodes:
            assert nodes[name].output_shapes == shapes, name
    for node in graph.nodes:
        if node.kind == "module":
            assert type(model.get_submodule(node.path)).__name__ == node.type

    # Edges go forward, and carry a tensor that their source gave, or wrote into through a view of it.
    place = {node.id: index for index, node in enumerate(graph.nodes)}
    for edge in graph.edges:
        assert place[edge.source] < place[edge.target]
        source = nodes[edge.source]
        written = source.input_shapes if source.kind == "op" else []
        assert edge.shape in [*source.output_shapes, *written], edge

    reached = {node.id for node in graph.nodes if node.kind == "input"}
    for edge in graph.edges:  # in order of execution
        if edge.source in reached:
            reached.add(edge.target)
    outputs = [node for node in graph.nodes if node.kind == "output"]
    assert [node.id for node in outputs if node.id not in reached] == []
    assert [node.output_shapes[0] for node in outputs] == [
        tuple(tensor.shape) for _, tensor in tensors_of(seen.output)
    ]

    assert graph[""].params == sum(parameter.numel() for parameter in model.parameters())
    assert sum(node.params for node in graph.nodes) == sum(seen.used.values())
    assert sum(node.flops for node in graph.nodes) == graph[""].flops == seen.flops
    return graph


def sources(graph: Graph, target: str) -> list[str]:
    return [edge.source for edge in graph.edges if edge.target == target]


def merges(graph: Graph) -> list[Node]:
    """Nodes at which several different nodes meet."""
    return [node for node in graph.nodes if node.kind != "output" and len(set(sources(graph, node.id))) > 1]


def leaves(graph: Graph) -> int:
    return sum(node.kind == "module" for node in graph.nodes)


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes if node.kind == "op")


def folds(graph: Graph, kind: str) -> list[int]:
    """How the groups of a class fold, one number for each run of equal ones."""
    found: list[int] = []
    groups = [group for group in graph.groups if group.type == kind]
    while groups:
        found.append(groups[0].fold)
        groups = groups[groups[0].fold :]
    return found


# -- convolutional networks ---------------------------------------------------------------------------------


def test_vgg16_is_a_chain() -> None:
    graph = checked(vision("vgg16"), image(1, 32))
    assert leaves(graph) == 39
    assert merges(graph) == []
    assert ops(graph) == {"flatten": 1}
    assert all(len(sources(graph, node.id)) == 1 for node in graph.nodes[1:])
    assert [group.id for group in graph.groups] == ["", "features", "classifier"]
    assert graph[""].children == ["input", "features", "avgpool", "/flatten", "classifier", "output"]


def test_resnet50_adds_16_times_and_downsamples_once_a_stage() -> None:
    graph = checked(vision("resnet50"), image(1, 64))
    assert leaves(graph) == 158
    assert [node.op for node in merges(graph)] == ["add"] * 16
    assert all(len(sources(graph, node.id)) == 2 for node in merges(graph))
    assert [group.id for group in graph.groups if group.path.endswith("downsample")] == [
        f"layer{stage}.0.downsample" for stage in (1, 2, 3, 4)
    ]
    assert folds(graph, "Bottleneck") == [1, 2, 1, 3, 1, 5, 1, 2]
    # One ReLU in each block, used three times.
    assert [f"layer2.1.relu{call}" in graph for call in ("", "@1", "@2", "@3")] == [True] * 3 + [False]


def test_densenet121_concatenates_in_four_blocks() -> None:
    graph = checked(vision("densenet121"), image(1, 64))
    assert leaves(graph) == 366
    assert len(graph.edges) == 967
    found = merges(graph)
    assert {node.op for node in found} == {"cat"}
    # One before every layer but the first (which has nothing to join), one at the end of each block.
    assert Counter(node.id.split(".")[1].split("/")[0] for node in found) == {
        "denseblock1": 6, "denseblock2": 12, "denseblock3": 24, "denseblock4": 16,
    }  # fmt: skip
    assert len(set(sources(graph, "features.denseblock1/cat"))) == 7


def test_googlenet_has_nine_modules_of_four_branches() -> None:
    graph = checked(vision("googlenet", init_weights=False), image(1, 64))
    found = merges(graph)
    assert [node.op for node in found] == ["cat"] * 9
    assert {len(sources(graph, node.id)) for node in found} == {4}
    assert not [item.id for item in graph if item.id.startswith("aux")]  # they run in training alone


def test_inception_v3_nests_its_concatenations() -> None:
    graph = checked(vision("inception_v3", init_weights=False), image(1, 96))
    found = merges(graph)
    assert [node.op for node in found] == ["cat"] * 15
    inner = [node for node in found if node.parent in {"Mixed_7b", "Mixed_7c"}]
    assert [[source.partition("/")[0] for source in sources(graph, node.id)][-1] for node in inner][2::3] == [
        "Mixed_7b.branch_pool", "Mixed_7c.branch_pool",
    ]  # fmt: skip
    assert [len(sources(graph, node.id)) for node in inner] == [2, 2, 4, 2, 2, 4]
    assert ops(graph)["relu"] == sum(group.type == "BasicConv2d" for group in graph.groups) == 94


def test_mobilenet_v3_gates_and_adds() -> None:
    graph = checked(vision("mobilenet_v3_large"), image(1, 64))
    assert Counter(node.op for node in merges(graph)) == {"add": 10, "mul": 8}
    gates = [group.id for group in graph.groups if group.type == "SqueezeExcitation"]
    assert len(gates) == 8
    for gate in gates:
        (product,) = [node for node in merges(graph) if node.parent == gate]
        assert f"{gate}.scale_activation" in sources(graph, product.id)
    depthwise = [node for node in graph.nodes if node.type == "Conv2d" and "depthwise" in node.detail]
    groups = [m for m in vision("mobilenet_v3_large").modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == len(groups) == 15


def test_efficientnet_b0_gates_adds_and_drops_nothing() -> None:
    graph = checked(vision("efficientnet_b0"), image(1, 64))
    assert Counter(node.op for node in merges(graph)) == {"add": 9, "mul": 16}
    depth = [node for node in graph.nodes if node.type == "StochasticDepth"]
    assert [node.status for node in depth] == ["identity"] * 9
    assert leaves(graph) == 223


def test_convnext_tiny_folds_its_blocks() -> None:
    graph = checked(vision("convnext_tiny"), image(1, 64))
    assert ops(graph) == {"mul": 18, "add": 18, "permute": 10, "layer_norm": 5}
    assert [node.op for node in merges(graph)] == ["add"] * 18
    assert folds(graph, "CNBlock") == [3, 3, 9, 3]
    assert sum(node.status == "identity" for node in graph.nodes) == 18
    # Its own LayerNorm2d is a group that holds the two permutations.
    assert graph["features.0.1"].children == [
        "features.0.1/permute", "features.0.1/layer_norm", "features.0.1/permute#1",
    ]  # fmt: skip
    assert {node.params for node in graph.nodes if node.op == "mul"} == {96, 192, 384, 768}  # layer scale


def test_deeplabv3_has_five_branches_in_its_pyramid() -> None:
    from torchvision.models.segmentation import deeplabv3_resnet50

    model = seeded(lambda: deeplabv3_resnet50(weights=None, weights_backbone=None))
    graph = checked(model, image(1, 64))
    assert Counter(node.op for node in merges(graph)) == {"add": 16, "cat": 1}
    assert len(set(sources(graph, "classifier.0/cat"))) == 5
    assert [node.id for node in graph.nodes if node.kind == "output"] == ["output"]


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression in plain torch, for where torchvision's compiled operators do not load."""
    from torchvision.ops import box_iou

    left = scores.argsort(descending=True)
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][box_iou(boxes[left[:1]], boxes[left[1:]])[0] <= threshold]
    return torch.stack(kept) if kept else left


@pytest.fixture
def detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give torchvision's detectors their two compiled operators in plain torch, where they are missing."""
    from torchvision import extension, ops

    if not extension._has_ops():
        align = importlib.import_module("torchvision.ops.roi_align")
        monkeypatch.setattr(ops.boxes, "nms", suppress)
        monkeypatch.setattr(
            ops.poolers,
            "roi_align",
            lambda x, boxes, output_size, spatial_scale, sampling_ratio: align._roi_align.__wrapped__(
                x, boxes, spatial_scale, *output_size, sampling_ratio, False
            ),
        )


@pytest.mark.usefixtures("detection")
def test_faster_rcnn_takes_a_list_and_gives_boxes() -> None:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    def make() -> nn.Module:
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        few = {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 3}
        return FasterRCNN(backbone, 5, min_size=64, max_size=64, box_score_thresh=0.0, **few)

    images = [image(1, 64)[0], image(1, 64, seed=1)[0]]
    graph = checked(seeded(make), images)
    assert [node.id for node in graph.nodes if node.kind == "input"] == ["input:0.0", "input:0.1"]
    assert [node.id for node in graph.nodes if node.kind == "output"] == [
        f"output:{sample}.{name}" for sample in (0, 1) for name in ("boxes", "labels", "scores")
    ]
    # Four levels of the pyramid and a pooled one: the same head for each.
    assert sum(node.path == "rpn.head.cls_logits" for node in graph.nodes) == 5
    assert graph["rpn.head.cls_logits@4"].shared == "rpn.head.cls_logits"
    assert sum(node.op == "add" and node.parent == "backbone.fpn" for node in graph.nodes) == 3
    assert {"roi_heads.box_roi_pool", "roi_heads.box_head", "roi_heads.box_predictor"} <= {
        group.id for group in graph.groups
    }


# -- vision transformers ------------------------------------------------------------------------------------


def test_vit_b_16_folds_twelve_layers() -> None:
    graph = checked(vision("vit_b_16", image_size=64), image(1, 64))
    assert folds(graph, "EncoderBlock") == [12]
    assert sum(node.type == "MultiheadAttention" for node in graph.nodes) == 12
    # The class token joins, the positions are added, and each layer adds twice.
    assert Counter(node.op for node in merges(graph)) == {"cat": 1, "add": 25}
    assert {"const:class_token", "const:encoder.pos_embedding"} <= {node.id for node in graph.nodes}
    assert sources(graph, "encoder/add") == ["/cat", "const:encoder.pos_embedding"]
    assert [node.op for node in graph.nodes[1:4]] == ["conv2d", "reshape", "permute"]


def test_swin_t_keeps_shifted_blocks_apart() -> None:
    graph = checked(vision("swin_t"), image(1, 128))
    assert sum(group.type == "SwinTransformerBlock" for group in graph.groups) == 12
    assert [graph[f"features.{stage}.{i}"].fold for stage in (1, 3, 5) for i in (0, 1)] == [1] * 6
    rolls = {node.parent for node in graph.nodes if node.op == "roll"}
    # The odd blocks shift, but for the last stage, where one window holds everything.
    assert rolls == {f"features.{stage}.{i}.attn" for stage, n in ((1, 2), (3, 2), (5, 6))
                     for i in range(1, n, 2)}  # fmt: skip
    assert sum(node.status == "identity" and node.type == "StochasticDepth" for node in graph.nodes) == 24
    assert [len(set(sources(graph, node.id))) for node in merges(graph) if node.op == "cat"] == [4, 4, 4]
    assert sum(group.type == "PatchMerging" for group in graph.groups) == 3


# -- small networks of every other kind ---------------------------------------------------------------------


def test_skips_of_a_u_net_lead_from_each_size_to_the_same_size() -> None:
    graph = checked(seeded(models.UNet), image(2, 16))
    assert [node.id for node in merges(graph)] == ["/cat", "/cat#1"]
    # The activation is in place: what is joined is what it left.
    assert sources(graph, "/cat") == ["down.1.3", "up.0"]
    assert sources(graph, "/cat#1") == ["down.0.3", "up.1"]
    for name in ("/cat", "/cat#1"):
        first, second = graph[name].input_shapes
        assert first == second
    assert [graph[name].call for name in ("pool", "pool@1")] == [0, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_an_lstm_that_reads_text(packed: bool) -> None:
    lengths = (torch.tensor([5, 7]),) if packed else ()
    graph = checked(seeded(lambda: models.TinyLstm(packed=packed)), torch.randint(0, 20, (2, 7)), *lengths)
    assert leaves(graph) == 3
    shapes = graph["lstm"].output_shapes
    assert (shapes[0], shapes[-2:]) == ((12, 10) if packed else (2, 7, 10), [(2, 2, 5), (2, 2, 5)])
    # The last state of each direction, out of the second of three ports.
    assert sources(graph, "/cat") == ["/getitem", "/getitem#1"]
    assert sources(graph, "/getitem") == ["lstm"]
    assert graph["/getitem"].input_shapes == [(2, 2, 5)]


class GruSeries(nn.Module):
    """A GRU over a series, its last step to a number."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.gru(x)
        return self.head(steps[:, -1])


def test_a_fused_gru_is_one_node() -> None:
    graph = checked(seeded(GruSeries), torch.randn(2, 24, 3))
    assert [node.id for node in graph.nodes] == ["input", "gru", "/getitem", "head", "output"]


def test_an_unrolled_gru_is_a_chain_of_calls_of_one_cell() -> None:
    graph = checked(seeded(models.Unrolled), torch.randn(2, 24, 3))
    cells = [node for node in graph.nodes if node.type == "GRUCell"]
    assert [node.call for node in cells] == list(range(24))
    assert {node.shared for node in cells[1:]} == {"cell"}
    for before, after in itertools.pairwise(cells):
        assert before.id in sources(graph, after.id)


def test_a_tabular_network_is_a_chain() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 3), nn.Softmax(1)
        )

    graph = checked(seeded(make), models.rows(4, 10))
    names = [node.id for node in graph.nodes]
    assert names == ["input", "0", "1", "2", "3", "4", "5", "output"]
    # Dropout does nothing here, and the way goes through it all the same.
    assert [(edge.source, edge.target) for edge in graph.edges] == list(itertools.pairwise(names))


class Autoencoder(nn.Module):
    """Returns the reconstruction and the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        return self.decoder(code), code


def test_an_autoencoder_has_two_outputs() -> None:
    graph = checked(seeded(Autoencoder), models.rows(4, 16))
    assert [node.id for node in graph.nodes if node.kind == "output"] == ["output:0", "output:1"]
    assert sources(graph, "output:0") == ["decoder.2"]
    assert sources(graph, "output:1") == ["encoder.2"]
    assert sources(graph, "decoder.0") == ["encoder.2"]


# -- language models ----------------------------------------------------------------------------------------


def language_model(name: str, config: dict[str, Any]) -> nn.Module:
    """Build a small model of Hugging Face with its default arguments and random weights."""
    transformers = pytest.importorskip("transformers")
    kind, settings = {
        "bert": ("BertForSequenceClassification", "BertConfig"),
        "gpt2": ("GPT2LMHeadModel", "GPT2Config"),
        "llama": ("LlamaForCausalLM", "LlamaConfig"),
        "t5": ("T5ForConditionalGeneration", "T5Config"),
    }[name]
    options = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **config}
    return seeded(lambda: getattr(transformers, kind)(getattr(transformers, settings)(**options)))


SMALL = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = torch.randint(3, 100, (1, 12), generator=torch.Generator().manual_seed(0))


def attention(graph: Graph) -> int:
    return ops(graph)["scaled_dot_product_attention"]


def test_bert_folds_its_layers() -> None:
    graph = checked(language_model("bert", SMALL), WORDS)
    assert folds(graph, "BertLayer") == [4]
    assert attention(graph) == 4
    # Words, kinds of sentence and positions make the embedding.
    assert {
        f"bert.embeddings.{name}_embeddings" for name in ("word", "token_type", "position")
    } <= {node.id for node in graph.nodes}  # fmt: skip


def test_gpt2_folds_its_layers_and_shares_its_embedding() -> None:
    config = {"n_layer": 4, "n_embd": 32, "n_head": 2, "n_positions": 32}
    graph = checked(language_model("gpt2", config), WORDS)
    assert folds(graph, "GPT2Block") == [4]
    assert attention(graph) == 4
    assert graph["lm_head"].shared == "transformer.wte"
    assert graph["lm_head"].params == 0
    assert sum(node.type == "" and node.op == "addmm" for node in graph.nodes) == 4 * 4


def test_llama_folds_its_layers_and_gates_its_mlp() -> None:
    graph = checked(language_model("llama", {**SMALL, "num_key_value_heads": 1}), WORDS)
    assert folds(graph, "LlamaDecoderLayer") == [4]
    assert attention(graph) == 4
    gates = [node for node in merges(graph) if node.parent.endswith("mlp") and node.op == "mul"]
    assert len(gates) == 4
    assert sources(graph, gates[0].id) == ["model.layers.0.mlp.act_fn", "model.layers.0.mlp.up_proj"]


def test_t5_reads_the_encoder_in_every_layer_of_the_decoder() -> None:
    config = {"num_layers": 3, "d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2}
    model = language_model("t5", {**config, "decoder_start_token_id": 0})
    graph = checked(model, input_ids=WORDS, decoder_input_ids=WORDS[:, :5])
    # The first block of each side makes the position bias that the others use.
    assert folds(graph, "T5Block") == [1, 2, 1, 2]
    assert attention(graph) == 3 + 2 * 3
    last = "encoder.dropout@1"
    cross = [name for name in (f"decoder.block.{i}.layer.1.EncDecAttention.{part}" for i in range(3)
                               for part in "kv") if last in sources(graph, name)]  # fmt: skip
    assert len(cross) == 6
    assert graph["lm_head"].shared == "encoder.embed_tokens"
