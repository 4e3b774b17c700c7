"""What a graph can be coloured by, against plain forward hooks, plain sums, and a clock that only counts."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled, CancelToken
from nnviz_widget.engine.statistics import dead_fraction, mean
from nnviz_widget.engine.timing import time_parts
from nnviz_widget.errors import InputError, NNVizError


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return torch.cat([self.relu(self.conv(x)), x], 1)


class Net(nn.Module):
    """A group, an operation between modules, a module called twice, and channels that never fire."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.block = Block()
        self.fc = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.bias[:3] = -1e3
            self.block.conv.bias[1] = -1e3

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.block(x)
        return self.fc(self.relu(x).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def engine(model):
    with Engine(model) as engine:
        yield engine


@pytest.fixture
def trace(engine):
    return engine.trace(torch.randn(3, 3, 8, 8))


def hooked(model, x, names):
    """Return what the modules give, by plain forward hooks; of a module that runs twice, the last."""
    kept, handles = {}, []
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out})))
    with torch.no_grad():
        kept[""] = model.eval()(x)
    for handle in handles:
        handle.remove()
    return kept


# ---- values


def test_the_mean_and_the_dead_channels_are_those_of_plain_hooks(model, engine, trace):
    means, dead = engine.measure(trace, "mean"), engine.measure(trace, "dead")
    kept = hooked(model, trace.inputs[0], ["stem", "block", "block.conv", "block.relu", "fc"])
    for name, out in kept.items():
        channels = out.movedim(1, 0).flatten(1)
        assert means[name] == pytest.approx(float(out.double().mean()), rel=1e-6)
        assert dead[name] == sum(not bool(row.any()) for row in channels) / len(channels), name
    assert dead["relu"] == 0.75
    assert dead["block.relu"] == 0.25
    assert dead["block"] == 0.5, "a group's is that of its output: 1 + 3 of 8 channels"


def test_a_channel_that_fires_on_one_sample_is_not_dead():
    batch = torch.zeros(5, 3, 4, 4)
    batch[2, 1, 3, 0] = 1e-9
    batch[4, 2] = float("nan")
    assert dead_fraction(batch) == pytest.approx(1 / 3)
    assert dead_fraction(batch.movedim(1, 3), axis=3) == pytest.approx(1 / 3)


def test_what_holds_no_channels_or_no_numbers_has_none_of_both():
    assert dead_fraction(torch.zeros(4)) is None
    assert dead_fraction(torch.zeros(0, 3)) is None
    for tensor in (torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.bool)):
        assert dead_fraction(tensor) is None
        assert mean(tensor) is None
    assert mean(torch.tensor([float("nan")])) is None
    assert mean(torch.tensor([1.0, float("inf"), 3.0])) == 2.0


def test_activations_that_were_let_go_count_as_well(engine, trace):
    expected = {what: engine.measure(trace, what) for what in ("mean", "dead")}
    trace.release()
    assert {what: engine.measure(trace, what) for what in ("mean", "dead")} == expected


# ---- counts


def test_counts_of_a_group_are_the_sums_over_what_is_in_it(model, engine, trace):
    params = engine.measure(trace, "params")
    assert params["block"] == sum(p.numel() for p in model.block.parameters())
    assert params[""] == sum(p.numel() for p in model.parameters())
    flops = engine.measure(trace, "flops")
    assert flops["block"] == 2 * 3 * 8 * 8 * 4 * (4 * 9)
    assert flops[""] == sum(flops[node.id] for node in trace.graph.nodes)
    memory = engine.measure(trace, "bytes")
    assert memory["block"] == 4 * 3 * 8 * 8 * (4 + 4 + 8)
    assert memory[""] == trace.summary().activation_bytes


@pytest.mark.parametrize("what", ["params", "flops", "bytes", "time", "mean", "dead"])
def test_every_measure_has_every_id_in_the_order_of_the_graph(engine, trace, what):
    assert list(engine.measure(trace, what)) == trace.graph.ids()


# ---- time


def test_everything_that_runs_takes_time_and_nothing_else_does(engine, trace):
    times = engine.time_layers(trace, repeats=2, warmup=0)
    for node in trace.graph.nodes:
        if node.kind in {"input", "output"}:
            assert times[node.id] is None
        else:
            assert times[node.id] > 0, node.id
    assert {"relu@1", "block/cat", "/mean", "block", ""} <= {name for name, took in times.items() if took}


def counted(module, args, **options):
    """Time a module by a clock that counts how often it is read."""
    ticks = itertools.count()
    return time_parts(
        module, args, {}, clock=lambda: float(next(ticks)), **{"repeats": 1, "warmup": 0} | options
    )


def test_what_runs_in_a_part_is_in_its_time(model, trace):
    times = counted(model.eval(), trace.args)
    for group in trace.graph.groups:
        assert sum(times[child] for child in group.children if child in times) <= times[group.id]
    assert times["block"] >= times["block.conv"] + times["block.relu"] + times["block/cat"]


def test_only_the_work_itself_is_timed(model, trace):
    """With a clock that moves by one at each reading, an operation is one reading long: its own."""
    times = counted(model.eval(), trace.args)
    assert times["block/cat"] == 1.0
    assert times["/mean"] == 1.0


def test_the_median_of_the_passes_counts_and_the_warm_up_does_not():
    # Passes of 100, 1, 50 and 2 time units for the one module that there is; the first is the warm-up.
    durations = iter([100.0, 1.0, 50.0, 2.0])
    now = 0.0

    class Slow(nn.Module):
        def forward(self, x):
            nonlocal now
            now += next(durations)
            return x + 1

    times = time_parts(nn.Sequential(Slow()), (torch.ones(1),), {}, repeats=3, warmup=1, clock=lambda: now)
    assert times["0"] == 2.0
    assert times[""] == 2.0


def test_timing_says_how_far_it_is_and_stops_when_asked(engine, trace):
    steps = []
    engine.time_layers(trace, repeats=2, warmup=1, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3)]
    token, reached = CancelToken(), []

    def stop(done, total):
        reached.append(done)
        if done == 1:
            token.cancel()

    with pytest.raises(Cancelled):
        time_parts(Net(), trace.args, {}, repeats=9, warmup=0, clock=float, token=token, progress=stop)
    assert reached == [0, 1]


def test_timing_runs_on_the_engines_thread_and_leaves_the_model_alone(model, trace, engine):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.threads = set()

        def forward(self, x):
            self.calls += 1
            self.threads.add(threading.get_ident())
            return nn.functional.dropout(x, 0.5, training=True)

    noisy = nn.Sequential(Noisy(), nn.Linear(4, 4)).train()
    x = torch.randn(2, 4)
    with Engine(noisy) as other:
        run = other.trace(x)
        before, random = x.clone(), torch.get_rng_state()
        other.time_layers(run, repeats=2)
        other.measure(run, "dead")
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, before)
    assert noisy[0].calls == 0
    assert threading.get_ident() not in noisy[0].threads
    assert noisy.training
    assert noisy[1].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in noisy.modules())
    assert all(parameter.grad is None for parameter in noisy.parameters())


# ---- what is asked


def test_what_cannot_be_measured_is_refused_by_name(engine, trace):
    with pytest.raises(InputError, match=r"no measure 'flop'.*flops"):
        engine.measure(trace, "flop")
    for options in ({"repeats": 0}, {"repeats": 2.5}, {"warmup": -1}):
        with pytest.raises(InputError, match="whole number from"):
            engine.time_layers(trace, **options)
    shapes = engine.trace(torch.randn(1, 3, 8, 8), shapes_only=True)
    assert engine.measure(shapes, "flops")["block"] > 0
    for what in ("time", "mean", "dead"):
        with pytest.raises(NNVizError, match="no values"):
            engine.measure(shapes, what)
    with Engine(Net()) as other, pytest.raises(InputError, match="another engine"):
        other.time_layers(trace)
