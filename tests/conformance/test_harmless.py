"""The user's model is left as it was found: after every call, a cancel, an exception, and in training."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.jobs import CancelToken

PATIENCE = 60


class Careless(nn.Module):
    """Does everything that an engine could leave traces of, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.act = nn.ReLU(inplace=True)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.head = nn.Linear(6, 5)
        self.register_buffer("seen", torch.zeros(()))
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.history: list[Tensor] = []
        self.interrupt: Callable[[], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x.clamp_(-3, 3)  # writes into its input
        self.seen += 1  # and into its own buffer
        self.last = x
        self.history.append(x)
        noise = torch.rand(6) + torch.randn(6)  # draws global random numbers
        y = self.drop(self.act(self.norm(self.conv(x))))
        if self.interrupt is not None:
            self.interrupt()
        y = y.flatten(2).transpose(1, 2) * self.frozen + noise
        y = self.encoder(y)
        y += 1
        return self.head(y.mean(1))


def everything(model: nn.Module) -> dict[str, Any]:
    """What must be bitwise the same before and after, as values that can be compared."""
    found: dict[str, Any] = {
        "random": torch.get_rng_state().tolist(),
        "mha": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    for name, module in model.named_modules():
        found[f"{name} training"] = module.training
        for key, value in vars(module).items():
            content = (
                list(value.items())
                if isinstance(value, dict)
                else list(value)
                if isinstance(value, list)
                else None
            )
            ids = (
                None
                if content is None
                else [id(part[1] if isinstance(part, tuple) else part) for part in content]
            )
            found[f"{name} {key}"] = (id(value), ids)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        gradient = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
        found[name] = (
            id(tensor),
            tensor._version,
            tensor.requires_grad,
            tensor.is_leaf,
            tensor.tolist(),
            gradient,
        )
    return found


@pytest.fixture(params=["train", "eval"])
def model(request: pytest.FixtureRequest) -> Careless:
    torch.manual_seed(0)
    model = Careless()
    model.conv.register_forward_hook(lambda module, args, output: None)
    model.norm.register_forward_pre_hook(lambda module, args: None)
    model(torch.randn(2, 3, 6, 6)).sum().backward()
    model.history.clear()
    model.train(request.param == "train")
    return model


def ask(engine: Engine, x: Tensor) -> None:
    """Ask for everything that can be asked."""
    trace = engine.trace(x)
    for layer, unit in [("conv", (1, 2, 2)), ("act", (0, 3, 3)), ("encoder", (4, 2)), ("output", (1,))]:
        trace.activation(layer)
        trace.stats(layer)
        for _ in range(2):
            engine.unit_saliency(trace, layer, unit, sample=1)
        engine.receptive_field(trace, layer, unit, sample=1)
    assert engine.epoch == trace.epoch


def test_every_question_leaves_the_model_and_the_input_bitwise_as_they_were(model: Careless) -> None:
    x = torch.randn(2, 3, 6, 6) * 4
    x.requires_grad_()
    before, kept = everything(model), x.detach().clone()
    with Engine(model) as engine:
        ask(engine, x)
        assert everything(model) == before
    assert everything(model) == before
    assert torch.equal(x, kept)
    assert x.grad is None
    assert x._version == 0


def test_an_exception_in_the_middle_of_the_forward_leaves_it_as_it_was(model: Careless) -> None:
    x = torch.randn(2, 3, 6, 6)
    with Engine(model) as engine:
        trace = engine.trace(x)

        def fail() -> None:
            raise ZeroDivisionError("halfway")

        model.interrupt = fail
        before = everything(model)
        for question in (
            lambda: engine.trace(x),
            lambda: engine.unit_saliency(trace, "output", 1),
            lambda: engine.trace(x[:, :2]),
        ):
            with pytest.raises(ModelError):
                question()
            assert everything(model) == before
        model.interrupt = None
        ask(engine, x)


@pytest.mark.parametrize("question", ["trace", "saliency"])
def test_a_cancel_in_the_middle_of_the_forward_leaves_it_as_it_was(model: Careless, question: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go_on.wait(PATIENCE)

    x = torch.randn(2, 3, 6, 6)
    with Engine(model) as engine:
        trace = engine.trace(x)
        model.interrupt = hold
        before = everything(model)

        def work(token: CancelToken) -> object:
            return engine.trace(x) if question == "trace" else engine.unit_saliency(trace, "output", 1)

        job = engine.jobs.submit(work)
        assert reached.wait(PATIENCE)
        job.cancel()
        go_on.set()
        with pytest.raises(Cancelled):
            job.result(PATIENCE)
        assert everything(model) == before
        model.interrupt = None
        ask(engine, x)


def train(model: nn.Module, steps: int, each: Callable[[int], None] = lambda step: None) -> None:
    """A training loop as people write it, with everything random drawn from the global generator."""
    torch.manual_seed(7)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        images, labels = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        each(step)


def trained() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout2d(0.3),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Tensor]:
    model = trained().train()
    train(model, 60)
    return {**model.state_dict(), "random": torch.get_rng_state()}


def test_training_ends_bit_for_bit_the_same_while_another_thread_clicks_through_the_layers(
    undisturbed: dict[str, Tensor],
) -> None:
    model = trained().train()
    x = torch.randn(2, 3, 8, 8)
    clicks, failed, done = [0], [], threading.Event()
    layers = [("0", (1, 2, 2)), ("2", (0, 3, 3)), ("6", (4, 2, 5)), ("output", (1,))]
    epochs: list[tuple[int, bool]] = []

    def click_through(engine: Engine) -> None:
        try:
            while not done.is_set():
                trace = engine.trace(x)
                epochs.append((trace.epoch, trace.consistent))
                for layer, unit in layers:
                    found = engine.saliency(trace, layer, unit)
                    epochs.append((found.epoch, found.consistent))
                    clicks[0] += 1
        except Exception as error:  # noqa: BLE001  the thread must not die unseen
            failed.append(error)

    with Engine(model) as engine:
        clicking = threading.Thread(target=click_through, args=(engine,))
        clicking.start()

        def wait_for_a_click(step: int) -> None:
            # The loop never runs away from the clicks, whichever of the two is faster on this machine.
            seen = clicks[0]
            if step % 10 == 0:
                while clicks[0] == seen and not failed and clicking.is_alive():
                    done.wait(0.001)

        train(model, 60, wait_for_a_click)
        done.set()
        clicking.join(PATIENCE)
    assert not failed
    after = {**model.state_dict(), "random": torch.get_rng_state()}
    assert [name for name in undisturbed if not torch.equal(after[name], undisturbed[name])] == []
    assert clicks[0] >= 6
    assert [epoch for epoch, _ in epochs] == sorted(epoch for epoch, _ in epochs)
    assert len({epoch for epoch, _ in epochs}) > 1


def test_a_trace_asked_for_inside_the_training_loop_is_a_consistent_moment(
    undisturbed: dict[str, Tensor],
) -> None:
    model = trained().train()
    x = torch.randn(2, 3, 8, 8)
    with Engine(model) as engine:
        epochs: list[int] = []

        def look(step: int) -> None:
            if step % 20 == 0:
                trace = engine.trace(x)
                flags = [module.training for module in model.modules()]
                model.eval()
                with torch.no_grad():
                    assert torch.equal(trace.output, model(x))
                for module, flag in zip(model.modules(), flags, strict=True):
                    module.training = flag
                assert trace.consistent
                epochs.append(trace.epoch)
                gradient = engine.saliency(trace, "6", (4, 2, 5))
                assert (gradient.epoch, gradient.consistent) == (trace.epoch, True)

        train(model, 60, look)
    assert epochs == sorted(set(epochs))
    assert len(epochs) == 3
    assert all(torch.equal(model.state_dict()[name], undisturbed[name]) for name in model.state_dict())


def test_a_paused_engine_holds_still_until_the_end_of_the_block() -> None:
    model = trained()
    with Engine(model) as engine:
        x = torch.randn(1, 3, 8, 8)
        with engine.paused():
            queued = engine.jobs.submit(lambda token: engine.trace(x))
            before = everything(model)
            own = engine.trace(x)  # what the block itself asks for is answered
            assert everything(model) == before
            assert queued.state == "queued"
            with torch.no_grad():
                model[0].weight.add_(1)
        assert queued.result(PATIENCE).epoch > own.epoch


def test_modes_of_a_caller_that_holds_the_engine_do_not_reach_the_answers() -> None:
    model = trained().eval()
    x = torch.randn(1, 3, 8, 8)
    with Engine(model) as engine:
        trace = engine.trace(x)
        expected = engine.unit_saliency(trace, "0", (1, 2, 2))
        for mode in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
            with engine.paused(), mode:
                again = engine.trace(x)
                found = engine.unit_saliency(again, "0", (1, 2, 2))
            assert isinstance(found, Tensor)
            assert isinstance(expected, Tensor)
            assert torch.equal(found, expected)
            assert torch.equal(again.output, trace.output)


def living_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def test_twenty_engines_leave_no_thread_no_hook_and_no_tensor() -> None:
    model = trained()
    x = torch.randn(2, 3, 8, 8)

    def use() -> list[weakref.ref[Any]]:
        engine = Engine(model)
        trace = engine.trace(x)
        ask_for = [("0", (1, 2, 2)), ("output", (1,))]
        for layer, unit in ask_for:
            engine.unit_saliency(trace, layer, unit)
        gone = [weakref.ref(engine), weakref.ref(trace), weakref.ref(trace.activation("0"))]
        gone += [weakref.ref(graph.activation) for graph in engine._units._graphs.values()]
        engine.close()
        return gone

    use()  # what is made once for the process
    threads, before, tensors = set(threading.enumerate()), everything(model), living_tensors()
    gone = [ref for _ in range(20) for ref in use()]
    assert living_tensors() == tensors
    assert set(threading.enumerate()) == threads
    assert [ref() for ref in gone if ref() is not None] == []
    assert everything(model) == before


def test_a_closed_engine_holds_no_memory_even_while_it_is_referred_to_and_needs_no_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        model = trained()
        engine = Engine(model)
        trace = engine.trace(torch.randn(2, 3, 8, 8))
        engine.unit_saliency(trace, "6", (1, 2, 2))
        graph = weakref.ref(next(iter(engine._units._graphs.values())).activation)
        weight = weakref.ref(model[0].weight)
        engine.close()
        assert graph() is None
        engine.model = nn.Module()
        del model, trace
        gc.collect()  # what ran in what is circular, and holds modules, not activations
        assert weight() is None
    finally:
        gc.enable()


def test_a_forgotten_engine_is_collected_and_its_thread_ends() -> None:
    engine = Engine(trained())
    trace = engine.trace(torch.randn(1, 3, 8, 8))
    thread = engine.jobs._queue.thread
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert trace.activation("0").shape == (1, 8, 8, 8)
