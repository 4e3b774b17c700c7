"""Every number that is taken apart must come out as it is in the real tensor, to 1e-5 of the scale."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError, StaleError

TOLERANCE = 1e-5
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


class Calls(nn.Module):
    """A model whose forward is one function of its input."""

    def __init__(self, call, *parts):
        super().__init__()
        self.call, self.parts = call, nn.ModuleList(parts)

    def forward(self, x):
        return self.call(x)


@contextmanager
def traced(model, *inputs):
    with nnviz.Engine(model.eval()) as engine:
        yield engine, engine.trace(*inputs)


def check(engine, trace, node, *, count=6, kind=None, seed=0):
    """Take some units of every sample apart and compare; returns the last."""
    activation = trace.activation(node)
    generator = torch.Generator().manual_seed(seed)
    found = None
    for flat in torch.randint(activation.numel(), (count,), generator=generator).tolist():
        index = [int(i) for i in torch.unravel_index(torch.tensor(flat), activation.shape)]
        found = engine.arithmetic(trace, node, tuple(index[1:]), sample=index[0])
        assert found.known, (node, found.note)
        assert found.actual == pytest.approx(float(activation[tuple(index)]), nan_ok=True)
        assert found.error <= TOLERANCE, (node, index, found)
        if kind:
            assert found.kind == kind
        if "products" in found.arrays:
            assert float(found.arrays["products"].sum()) == pytest.approx(found.numbers["sum"], abs=1e-9)
    return found


def one(module, x, kind=None, *, count=6):
    model = nn.Sequential(copy.deepcopy(module))
    with traced(model, x) as (engine, trace):
        return check(engine, trace, "0", count=count, kind=kind)


@st.composite
def convolutions(draw, *, transpose=False):
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2]))
    into, out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    each = st.integers(1, 3)
    axes = [draw(st.tuples(each, st.integers(1, 3), st.integers(1, 2))) for _ in range(dims)]
    kernel, stride, dilation = zip(*axes, strict=True)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
    if transpose:
        # Of the output there must be something left.
        options["padding"] = tuple(draw(st.integers(0, min(1, (k - 1) * d))) for k, _, d in axes)
        extra = draw(st.booleans())
        options["output_padding"] = tuple(int(extra and max(s, d) > 1) for _, s, d in axes)
        cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    else:
        options["padding"] = draw(st.sampled_from([0, 1, 2, "valid", "same"]))
        options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        if options["padding"] == "same":
            options["stride"] = 1
        cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    sizes = [draw(st.integers(5, 8)) for _ in range(dims)]
    torch.manual_seed(draw(st.integers(0, 99)))
    return cls(into, out, kernel, **options), torch.randn(2, into, *sizes)


@FEW
@given(convolutions())
def test_a_convolution_is_the_sum_of_its_products(drawn):
    module, x = drawn
    found = one(module, x, "weighted_sum")
    assert found.arrays["kernel"].shape == module.weight.shape[1:]
    assert found.source == "input"
    # What it says of where it looked holds: reading the input there gives the patch.
    inside = found.places[..., 0] >= 0
    at = tuple(found.places[inside].T)
    for channel, patch in enumerate(found.arrays["patch"]):
        expected = x[(found.sample, found.first + channel, *at)].double()
        assert torch.equal(patch[inside], expected)


@FEW
@given(convolutions(transpose=True))
def test_a_transposed_convolution_asks_which_inputs_reach_a_place(drawn):
    one(drawn[0], drawn[1], "weighted_sum")


@FEW
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(1, 2)
)
def test_pooling_names_its_winner_or_its_shares(dims, kernel, stride, ceil, counted, dilation):
    torch.manual_seed(kernel)
    x, pad = torch.randn(2, 3, *[9] * dims), kernel // 2
    most = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    found = one(most(kernel, stride, pad, dilation, ceil_mode=ceil), x, "choice")
    assert float(found.arrays["patch"].reshape(-1)[int(found.numbers["winner"])]) == found.result
    mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
    one(mean(kernel, stride, pad, ceil_mode=ceil, count_include_pad=counted), x, "weighted_sum")
    for cls in (
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1],
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[dims - 1],
    ):
        one(cls(stride + 1), x)


@FEW
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans())
def test_a_linear_layer_and_products_of_matrices(into, out, bias, tokens):
    torch.manual_seed(into)
    x = torch.randn(2, 4, into) if tokens else torch.randn(2, into)
    found = one(nn.Linear(into, out, bias=bias), x, "weighted_sum")
    assert found.arrays["products"].shape == (into,)
    other, added = torch.randn(into, out), torch.randn(out)
    for call in (
        lambda x: x @ other,
        lambda x: torch.matmul(x, other),
        lambda x: torch.ones(3, x.shape[-2], dtype=x.dtype) @ x,
        lambda x: torch.addmm(added, x.reshape(-1, into), other, beta=0.5, alpha=2),
        lambda x: torch.bmm(x.reshape(2, -1, into), other.expand(2, -1, -1)),
    ):
        with traced(Calls(call), x) as (engine, trace):
            check(engine, trace, trace.graph.nodes[-2].id, kind="weighted_sum")


@FEW
@given(st.integers(1, 3), st.booleans(), st.integers(2, 5))
def test_normalisations_say_what_a_number_is_compared_with(dims, affine, size):
    torch.manual_seed(size)
    x = 3 * torch.randn(3, 4, *[size] * dims) + 1
    batch = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](4, affine=affine)
    batch.running_mean.uniform_(-1, 1)
    batch.running_var.uniform_(0.5, 2)
    instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1]
    modules = [
        batch,
        type(batch)(4, track_running_stats=False),
        instance(4, affine=affine),
        instance(4, affine=affine, track_running_stats=True),
        nn.GroupNorm(2, 4, affine=affine),
        nn.LayerNorm(size, elementwise_affine=affine),
        nn.LayerNorm([size] * dims, elementwise_affine=affine),
        nn.RMSNorm(size, elementwise_affine=affine),
    ]
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        one(module, x, "normalisation", count=3)


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(3), nn.PReLU(), nn.RReLU(),
    nn.ELU(0.7), nn.ELU(inplace=True), nn.SELU(), nn.CELU(1.3), nn.GELU(), nn.GELU("tanh"), nn.Mish(),
    nn.SiLU(inplace=True), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Softplus(2.0), nn.Softsign(),
    nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(-0.4, 0.6), nn.Hardshrink(), nn.Softshrink(),
    nn.Tanhshrink(), nn.Threshold(0.1, -3.0),
]  # fmt: skip


@pytest.mark.parametrize("module", ACTIVATIONS, ids=lambda module: str(module).replace(" ", ""))
def test_an_activation_function_and_its_curve(module):
    torch.manual_seed(0)
    x = 2 * torch.randn(2, 3, 5, 5)
    model = nn.Sequential(copy.deepcopy(module))
    with traced(model, x) as (engine, trace):
        check(engine, trace, "0", kind="function")
        curve = engine.activation_curve(trace, "0")
    reference = copy.deepcopy(module).double().eval()
    channels = curve.x[:, None, None].expand(-1, 3, 1) if isinstance(module, nn.PReLU) else curve.x
    points = channels.clone().requires_grad_()
    y = reference(points * 1)
    (slope,) = torch.autograd.grad(y.sum(), points)
    first = (lambda t: t[:, 0, 0]) if isinstance(module, nn.PReLU) else (lambda t: t)
    torch.testing.assert_close(curve.y, first(y.detach()))
    torch.testing.assert_close(curve.slope, first(slope))
    assert int(curve.counts.sum()) == curve.inputs == x.numel()
    given = x.double().requires_grad_()
    (real,) = torch.autograd.grad(reference(given * 1).sum(), given)
    if not isinstance(module, nn.PReLU):
        assert curve.saturated == pytest.approx(float((real.abs() < 0.05).double().mean()))


@FEW
@given(st.integers(0, 3), st.booleans())
def test_softmax_and_its_logarithm(dim, log):
    torch.manual_seed(dim)
    one((nn.LogSoftmax if log else nn.Softmax)(dim), 4 * torch.randn(2, 3, 4, 5), "softmax")


@FEW
@given(
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "bool", "float", "heads", "padding"]),
    st.sampled_from([None, 6]),
)
def test_multi_head_attention_mixes_values(heads, bias, batch_first, masked, other):
    torch.manual_seed(heads)
    module = nn.MultiheadAttention(8, heads, bias=bias, batch_first=batch_first, kdim=other, vdim=other)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, memory = torch.randn(3, 5, 8), torch.randn(3, 4, other or 8)
    masks = {
        "none": {},
        "bool": {"attn_mask": torch.randn(5, 4) > 1},
        "float": {"attn_mask": torch.randn(5, 4)},
        "heads": {"attn_mask": torch.randn(3 * heads, 5, 4)},
        "padding": {"key_padding_mask": torch.tensor([[False, True, False, False]] * 3)},
    }[masked]

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = module

        def forward(self, x):
            first, second = (x, memory) if batch_first else (x.transpose(0, 1), memory.transpose(0, 1))
            return self.attention(first, second, second, need_weights=False, **masks)[0]

    with traced(Attends(), x) as (engine, trace):
        found = check(engine, trace, "attention", kind="attention")
        assert found.arrays["weights"].shape == (heads, 4)
        torch.testing.assert_close(found.arrays["weights"].sum(1), torch.ones(heads, dtype=torch.float64))


@FEW
@given(
    st.sampled_from(["plain", "causal", "bool", "float", "grouped"]),
    st.sampled_from([None, 0.3]),
    st.booleans(),
)
def test_scaled_dot_product_attention(how, scale, batched):
    torch.manual_seed(1)
    options = {
        "plain": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": torch.rand(5, 5) > 0.3},
        "float": {"attn_mask": torch.randn(2, 1, 5, 5)},
        "grouped": {"enable_gqa": True},
    }[how]
    x = torch.randn(2, 4, 5, 6)
    keys = torch.randn(2, 2 if how == "grouped" else 4, 5, 6)
    if not batched and how in {"plain", "causal", "bool"}:
        x, keys = x[:, 0], keys[:, 0]
    call = Calls(lambda x: F.scaled_dot_product_attention(x, keys, keys.flip(-1), scale=scale, **options))
    with traced(call, x) as (engine, trace):
        check(engine, trace, "/scaled_dot_product_attention", kind="attention")


class Recurs(nn.Module):
    def __init__(self, module, *, packed=False):
        super().__init__()
        self.rnn, self.packed = module, packed

    def forward(self, x):
        if self.packed:
            x = pack_padded_sequence(x, torch.tensor([6, 4, 3]), batch_first=self.rnn.batch_first)
            return self.rnn(x)[0].data
        return self.rnn(x)[0]


@FEW
@given(
    st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans()
)
def test_the_gates_of_recurrent_layers_at_a_step(cls, layers, both, biased, first):
    torch.manual_seed(layers)
    module = cls(4, 3, layers, bias=biased, bidirectional=both, batch_first=first)
    for packed in (False, True):
        x = torch.randn(3, 6, 4) if first else torch.randn(6, 3, 4)
        with traced(Recurs(copy.deepcopy(module), packed=packed), x) as (engine, trace):
            found = check(engine, trace, "rnn", kind="gates")
            if cls is nn.LSTM:
                n = found.numbers
                assert n["c"] == pytest.approx(n["f"] * n["c before"] + n["i"] * n["g"])


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_the_gates_of_cells(cls):
    torch.manual_seed(0)
    cell = cls(4, 3)

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            state = None
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            return state[0] if isinstance(state, tuple) else state

    with traced(Unrolled(), torch.randn(2, 3, 4)) as (engine, trace):
        for node in ("cell", "cell@1", "cell@2"):
            check(engine, trace, node, kind="gates")


def test_an_embedding_is_a_row_of_its_table():
    tokens = torch.randint(10, (2, 5))
    found = one(nn.Embedding(10, 6, padding_idx=0), tokens, "lookup")
    assert found.numbers["row"] == float(tokens[found.sample, found.unit[0]])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: x + x.flip(1), "elementwise"),
        (lambda x: 2 - x, "elementwise"),
        (lambda x: 1 / (x + 9), "elementwise"),
        (lambda x: torch.add(x, x[:, :1], alpha=3), "elementwise"),
        (lambda x: torch.rsub(x, 3.0), "elementwise"),
        (lambda x: x * torch.tensor([1.0, -2.0])[:, None, None], "elementwise"),
        (lambda x: torch.where(x > 0, x, 0.1 * x), "elementwise"),
        (lambda x: x.masked_fill(x > 0, -1.0), "elementwise"),
        (lambda x: x**2, "elementwise"),
        (lambda x: x.clone().add_(x), "elementwise"),
        (lambda x: F.glu(x, 1), "elementwise"),
        (lambda x: x.abs().sqrt(), "function"),
        (lambda x: x.clamp(-0.5, 0.5), "function"),
        (lambda x: torch.cat([x, x * 2], 1), "copy"),
        (lambda x: torch.stack([x, x * 2], 2), "copy"),
        (lambda x: x.flatten(1), "copy"),
        (lambda x: x.reshape(2, -1, 2).transpose(1, 2), "copy"),
        (lambda x: x.permute(0, 3, 1, 2)[:, 1:, :, ::2], "copy"),
        (lambda x: F.pad(x, (1, 1, 2, 0), value=3.0), "copy"),
        (lambda x: F.pad(x, (1, 1, 0, 2), mode="replicate"), "copy"),
        (lambda x: F.pixel_unshuffle(x, 2), "copy"),
        (lambda x: x.roll(1, -1), "copy"),
        (lambda x: x.chunk(2, 1)[1], "copy"),
        (lambda x: x.mean((2, 3)), "weighted_sum"),
        (lambda x: x.sum(1, keepdim=True), "weighted_sum"),
        (lambda x: x.amax((2, 3)), "choice"),
        (lambda x: x.max(1).values, "choice"),
        (lambda x: F.interpolate(x, scale_factor=2), "weighted_sum"),
        (lambda x: F.interpolate(x, (7, 5), mode="bilinear"), "weighted_sum"),
        (lambda x: F.conv2d(x, torch.ones(1, 2, 3, 3), padding=1), "weighted_sum"),
        (lambda x: F.max_pool2d(F.relu(x), 2), "choice"),
    ],
)
def test_functional_calls_are_taken_apart_as_modules_are(call, kind):
    torch.manual_seed(0)
    with traced(Calls(call), torch.randn(2, 2, 4, 6)) as (engine, trace):
        made = trace.ops[trace.refs["output"].op]
        check(engine, trace, made.node, count=10, kind=kind)


def test_where_a_joined_number_came_from():
    x = torch.randn(1, 2, 3, 3)
    with traced(Calls(lambda x: torch.cat([x, x + 1], 1)), x) as (engine, trace):
        found = engine.arithmetic(trace, "/cat", (3, 1, 2))
        assert (found.operands[0].node, found.operands[0].index) == ("/add", (0, 1, 1, 2))
        assert engine.arithmetic(trace, "/cat", (0, 1, 2)).operands[0].node == "input"


def test_an_operation_that_is_not_known_says_so():
    with traced(Calls(lambda x: torch.cumsum(x, 1)), torch.randn(1, 3, 4)) as (engine, trace):
        found = engine.arithmetic(trace, "/cumsum", (1, 2))
        assert not found.known
        assert found.kind == "unknown"
        assert "cumsum" in found.note
        assert found.actual == float(trace.activation("/cumsum")[0, 1, 2])


def test_wrong_questions_say_what_is_wrong():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with traced(model, torch.randn(1, 1, 5, 5)) as (engine, trace):
        with pytest.raises(InputError, match="unit"):
            engine.arithmetic(trace, "0", (9, 0, 0))
        with pytest.raises(InputError, match="no activation function"):
            engine.activation_curve(trace, "0")
        with torch.no_grad():
            model[0].weight += 1
        with pytest.raises(StaleError, match="changed"):
            engine.arithmetic(trace, "0", (0, 0, 0))


def every_node(engine, trace, *, count=2, unknown=()):
    """Take units of every node of a run apart."""
    kinds = set()
    for node in trace.graph.nodes:
        ref = trace.refs.get(node.id)
        if ref is None or node.kind == "constant" or trace.activation(node.id).dim() < 2:
            continue
        shape = trace.activation(node.id).shape
        generator = torch.Generator().manual_seed(len(node.id))
        for flat in torch.randint(int(torch.tensor(shape).prod()), (count,), generator=generator).tolist():
            index = [int(i) for i in torch.unravel_index(torch.tensor(flat), shape)]
            found = engine.arithmetic(trace, node.id, tuple(index[1:]), sample=index[0])
            if not found.known:
                assert node.op in unknown, (node.id, found.note)
                continue
            kinds.add(found.kind)
            assert found.error <= TOLERANCE, (node.id, index, str(found), found.error)
    return kinds


def test_every_layer_of_the_demo_network():
    demo = nnviz.demo.shapes()
    with traced(demo.model, demo.inputs[:2]) as (engine, trace):
        assert {"weighted_sum", "function"} <= every_node(engine, trace, count=4)


def test_every_layer_of_resnet_18():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    with traced(resnet18(), torch.randn(1, 3, 64, 64)) as (engine, trace):
        kinds = every_node(engine, trace)
        assert {"weighted_sum", "normalisation", "function", "choice", "elementwise", "copy"} <= kinds


def test_every_layer_of_a_vision_transformer():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with traced(model, torch.randn(2, 3, 32, 32)) as (engine, trace):
        assert {"attention", "normalisation", "weighted_sum", "function"} <= every_node(
            engine, trace, count=4
        )


def test_every_layer_of_a_recurrent_text_model():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(12, 3)

        def forward(self, tokens):
            return self.head(self.lstm(self.embedding(tokens))[0][:, -1]).softmax(-1)

    torch.manual_seed(0)
    with traced(Text(), torch.randint(20, (2, 7))) as (engine, trace):
        assert {"lookup", "gates", "weighted_sum", "softmax", "copy"} <= every_node(engine, trace, count=5)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        inner = self.norm(x)
        return x + self.mix(inner, inner, inner)[0]


@pytest.mark.parametrize("site", ["0", "0.norm", "0.mix", "1"])
def test_what_an_intervention_changed_is_read_as_changed_by_all_that_comes_after(site):
    torch.manual_seed(0)
    model = nn.Sequential(Residual(), Residual(), nn.Linear(8, 4)).eval()
    x = torch.randn(2, 5, 8)
    kept = {}
    reference = copy.deepcopy(model)
    reference.get_submodule(site).register_forward_hook(
        lambda _, __, out: (-3 * out[0], *out[1:]) if isinstance(out, tuple) else -3 * out
    )
    for name, module in reference.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: kept.update({name: out}))
    with torch.no_grad():
        reference(x)
    with nnviz.Engine(model) as engine:
        with engine.intervene(site, "scale", factor=-3.0):
            trace = engine.trace(x)
        for name in ("0.norm", "0.mix", "0/add", "0", "1.norm", "1.mix", "1/add", "1", "2", "output"):
            found = engine.arithmetic(trace, name, (2, 3), sample=1)
            if name in kept:
                value = kept[name][0] if isinstance(kept[name], tuple) else kept[name]
                assert found.actual == pytest.approx(float(value[1, 2, 3]), abs=1e-5)
            if name == site:
                assert found.changed_by == [f'engine.intervene("{site}", "scale", factor=-3.0)']
                assert -3 * found.result == pytest.approx(found.actual, abs=1e-5)
                assert "changed by engine.intervene" in str(found)
            else:
                assert found.changed_by == []
                assert found.error <= TOLERANCE, (site, name, found)


def test_a_layer_whose_heads_are_changed_inside_of_it_shows_no_wrong_sum():
    torch.manual_seed(0)
    model = nn.Sequential(Residual(), nn.Linear(8, 4)).eval()
    with nnviz.Engine(model) as engine:
        with engine.intervene("0.mix", "ablate", head=1):
            trace = engine.trace(torch.randn(1, 5, 8))
        found = engine.arithmetic(trace, "0.mix", (2, 3))
        assert not found.known
        assert 'engine.intervene("0.mix", "ablate", head=1)' in found.note
        assert found.actual == float(trace.activation("0.mix")[0, 2, 3])
        for name in ("0/add", "1"):
            check(engine, trace, name)
