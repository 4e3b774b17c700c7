"""The facade: what it takes, what it refuses and how, what it keeps, and what it does while weights move."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled, ClosedError
from nnviz_widget.errors import InputError, ModelError, StaleError, UnknownLayerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.jobs import CancelToken

PATIENCE = 60


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


@pytest.fixture
def model() -> nn.Sequential:
    return small()


@pytest.fixture
def engine(model: nn.Sequential) -> Iterator[Engine]:
    with Engine(model) as engine:
        yield engine


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def only(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    assert isinstance(found, Tensor)
    return found


# -- models ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear, "Linear is a class"),
        (lambda x: x, "not function"),
        ("resnet18", "not str"),
        (nn.LazyLinear(3), "Run the model once"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_do(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Engine(model)


def test_a_device_that_is_not_there_is_refused() -> None:
    for device in ("cuda:17", "abacus"):
        with pytest.raises(InputError, match="cannot be used here"):
            Engine(nn.Linear(2, 2), device=device)


def test_a_model_without_parameters_works() -> None:
    class Edges(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., 1:] - x[..., :-1]

    with Engine(Edges()) as engine:
        trace = engine.trace(X)
        assert torch.equal(trace.output, X[..., 1:] - X[..., :-1])
        gradient = only(engine.unit_saliency(trace, "output", (1, 2, 3)))
        assert gradient.nonzero().tolist() == [[0, 1, 2, 3], [0, 1, 2, 4]]
        assert gradient[0, 1, 2, 3:5].tolist() == [-1, 1]


def test_a_model_in_train_mode_is_shown_in_eval_mode(model: nn.Sequential, engine: Engine) -> None:
    model.train()
    output = engine.trace(X).output
    assert model.training
    model.eval()
    with torch.no_grad():
        assert torch.equal(output, model(X))


def test_what_a_compiled_or_parallel_wrapper_holds_is_shown_under_its_own_names() -> None:
    inner = small().eval()
    for wrapped in (torch.compile(inner, backend="eager"), nn.DataParallel(inner)):
        with Engine(wrapped) as engine:
            trace = engine.trace(X)
            assert trace.graph.model == "Sequential"
            assert torch.equal(trace.activation(inner[0]), trace.activation("0"))
            assert torch.equal(trace.activation(wrapped), trace.output)


def test_outputs_may_be_dicts_tuples_and_nests() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(
            self, x: Tensor, *, scale: float = 1.0, extra: dict[str, Tensor] | None = None
        ) -> dict[str, Any]:
            x = x * scale + (0 if extra is None else extra["bias"])
            return {"a": self.a(x), "rest": (self.b(x), None)}

    model = Heads()
    x, bias = torch.randn(2, 3), torch.randn(3)
    with Engine(model) as engine:
        trace = engine.trace(x, scale=2.0, extra={"bias": bias})
        expected = model(x, scale=2.0, extra={"bias": bias})
        assert torch.equal(trace.output["a"], expected["a"])
        assert torch.equal(trace.output["rest"][0], expected["rest"][0])
        first, second = engine.unit_saliency(trace, "b", 3)
        assert torch.allclose(first[0], model.b.weight[3] * 2)
        assert torch.allclose(second, model.b.weight[3])


# -- inputs ---------------------------------------------------------------


def test_numpy_arrays_work(engine: Engine) -> None:
    trace = engine.trace(X.numpy()[::-1])
    assert torch.equal(trace.output.flip(0), engine.trace(X).output)


def test_what_the_user_does_to_the_input_afterwards_changes_nothing(engine: Engine) -> None:
    x = X.clone()
    trace = engine.trace(x)
    expected = only(engine.unit_saliency(trace, "2", (1, 2, 2)))
    x.zero_()
    engine.refresh()
    assert torch.equal(only(engine.unit_saliency(trace, "2", (1, 2, 2))), expected)


def test_inputs_that_require_gradients_or_come_from_inference_mode_work(engine: Engine) -> None:
    with torch.inference_mode():
        made = X.clone()
    for x in (X.clone().requires_grad_(), X.clone().requires_grad_() * 1, made):
        trace = engine.trace(x)
        assert only(engine.unit_saliency(trace, "0", (1, 2, 2))).abs().sum() > 0
        assert not trace.output.requires_grad


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ModelError, ["uint8", "x.float() / 255"]),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), ModelError, ["float64", "x.to(torch.float32)"]),
        (np.zeros((1, 3, 8, 8)), ModelError, ["float64", "x.to(torch.float32)"]),
        (torch.zeros(1, 1, 8, 8), ModelError, ["'0' is a Conv2d", "3 channel(s): N×3×H×W", "1×1×8×8"]),
        (torch.zeros(8, 8), ModelError, ["'0' is a Conv2d", "8×8"]),
        (torch.zeros(3, 8, 8), ModelError, ["'1' is a BatchNorm2d", "x[None]"]),
        (torch.zeros(1, 3, 9, 9), ModelError, ["'4' is a Linear", "144 features"]),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)], ModelError, ["torch.stack"]),
        ([[1.0, 2.0], [3.0, 4.0]], InputError, ["list of numbers", "torch.tensor"]),
        ("cat.png", ModelError, ["No tensor was given (str)"]),
        (None, ModelError, ["No tensor was given (NoneType)"]),
    ],
    ids=["uint8", "float64", "numpy float64", "channels", "2-D", "unbatched", "too large", "list of tensors",
         "list of numbers", "text", "none"],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_to_do(
    engine: Engine, x: Any, error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        engine.trace(x)
    for word in words:
        assert word in str(caught.value)
    assert engine.trace(X).complete  # the next good one works


def test_an_error_of_the_model_names_the_line_the_node_and_the_shapes() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, x: Tensor) -> Tensor:
            y = self.body[0](x)
            return y @ x  # the line

    with Engine(Broken()) as engine, pytest.raises(ModelError) as caught:
        engine.trace(X)
    error = caught.value
    assert error.source.startswith("test_engine.py:")
    assert error.node == "/matmul"
    assert error.shapes == ("2×4×6×6", "2×3×8×8")
    partial: Any = error.trace
    assert not partial.complete
    assert partial.activation("body.0").shape == (2, 4, 6, 6)


def test_missing_and_unknown_arguments_are_errors_of_the_model(engine: Engine) -> None:
    with pytest.raises(ModelError, match="missing 1 required positional argument"):
        engine.trace()
    with pytest.raises(ModelError, match="unexpected keyword argument 'colour'"):
        engine.trace(X, colour=1)


def test_models_that_take_whole_numbers_get_them_and_have_no_gradient_on_them() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    ids = torch.tensor([[1, 2, 3]])
    with Engine(model) as engine:
        trace = engine.trace(ids)
        assert torch.equal(trace.output, model(ids))
        with pytest.raises(InputError, match="whole numbers"):
            engine.unit_saliency(trace, "2", 1)
        field = engine.receptive_field(trace, "0", (1, 0))
        assert field.mask.tolist() == [False, True, False]
        with pytest.raises(ModelError, match="from 0 to 9"):
            engine.trace(torch.tensor([[1, 2, 99]]))


def test_nan_and_infinity_pass_through(engine: Engine) -> None:
    x = X.clone()
    x[0, 0, 0, 0], x[1] = float("nan"), float("inf")
    trace = engine.trace(x)
    assert trace.activation("0").isnan().any()
    assert only(engine.unit_saliency(trace, "0", (1, 2, 2))).isfinite().all()


def test_tensors_inside_other_objects_run_and_have_no_gradient() -> None:
    class Batch:
        def __init__(self, images: Tensor) -> None:
            self.images = images

    @dataclass
    class Record:
        images: Tensor

    class Takes(nn.Module):
        def forward(self, batch: Any) -> Tensor:
            return batch.images * 2

    with Engine(Takes()) as engine:
        for batch in (Batch(X), Record(X)):
            trace = engine.trace(batch)
            assert torch.equal(trace.output, X * 2)
            with pytest.raises(InputError):
                engine.unit_saliency(trace, "output", (0, 0, 0))


def test_inputs_go_where_the_model_is_and_a_model_without_tensors_is_where_they_are() -> None:
    with Engine(nn.Linear(3, 2), device="cpu:0") as engine:
        assert engine.device == torch.device("cpu")
        assert engine._twin.module.weight is engine.model.weight
    with Engine(nn.Linear(3, 2), device="meta") as engine:
        assert engine.trace(torch.zeros(4, 3)).output.device.type == "meta"
    with Engine(nn.ReLU()) as engine:
        assert engine.trace(torch.zeros(4, 3, device="meta")).output.device.type == "meta"


def test_complex_and_float64_models_work() -> None:
    torch.manual_seed(0)
    for dtype in (torch.complex64, torch.float64):
        model = nn.Sequential(nn.Linear(3, 2, dtype=dtype))
        x = torch.randn(2, 3, dtype=dtype)
        with Engine(model) as engine:
            found = engine.saliency(engine.trace(x), "0", 1, sample=1)
        leaf = x.clone().requires_grad_()
        unit = model(leaf)[1, 1].real if dtype.is_complex else model(leaf)[1, 1]
        assert torch.equal(only(found.values), torch.autograd.grad(unit, leaf)[0])
        assert found.value == float(unit.detach())


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_what_autograd_itself_refuses_is_an_error_of_the_model() -> None:
    class Reentrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=True)

    with Engine(Reentrant()) as engine:
        trace = engine.trace(torch.randn(1, 3))
        with pytest.raises(ModelError, match="Autograd refuses"):
            engine.unit_saliency(trace, "output", 1)


# -- layers, units, samples ---------------------------------------------------------------


def test_a_layer_is_a_path_a_node_or_a_module(model: nn.Sequential, engine: Engine) -> None:
    trace = engine.trace(X)
    expected = only(engine.unit_saliency(trace, "0", (1, 2, 2)))
    assert torch.equal(only(engine.unit_saliency(trace, model[0], (1, 2, 2))), expected)
    assert engine.receptive_field(trace, model[0], (1, 2, 2)).box == (2, 2, 5, 5)


def test_an_unknown_layer_names_the_nearest(engine: Engine) -> None:
    trace = engine.trace(X)
    for question in (engine.unit_saliency, engine.receptive_field):
        with pytest.raises(UnknownLayerError, match="Did you mean 'output'"):
            question(trace, "outputs", 1)
        with pytest.raises(UnknownLayerError, match="not a part"):
            question(trace, nn.ReLU(), 1)


@pytest.mark.parametrize(
    ("unit", "sample", "message"),
    [
        ((9, 0, 0), 0, "outside"),
        ((-1, 0, 0), 0, "outside"),
        ((1, 2), 0, "without the batch axis"),
        (3, 0, "without the batch axis"),
        ((1.0, 2, 3), 0, "whole numbers"),
        ("1,2,3", 0, "whole numbers"),
        (None, 0, "whole numbers"),
        ((True, 2, 3), 0, "whole numbers"),
        ((1, 2, 3), 2, "2 sample"),
        ((1, 2, 3), -1, "2 sample"),
        ((1, 2, 3), "0", "2 sample"),
    ],
)
def test_a_unit_or_sample_that_is_not_there_is_an_error_with_the_shape(
    engine: Engine, unit: Any, sample: Any, message: str
) -> None:
    trace = engine.trace(X)
    for question in (engine.unit_saliency, engine.receptive_field):
        with pytest.raises(InputError, match=message):
            question(trace, "0", unit, sample)


def test_a_trace_of_another_engine_is_refused(engine: Engine) -> None:
    with Engine(small()) as other:
        trace = other.trace(X)
    with pytest.raises(InputError, match="another engine"):
        engine.unit_saliency(trace, "0", (1, 2, 2))
    with pytest.raises(InputError, match=r"engine\.trace"):
        engine.unit_saliency(X, "0", (1, 2, 2))  # type: ignore[arg-type]


def test_a_layer_that_is_cut_off_from_the_input_says_so() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().argmax(1) + x.sum().long()

    with Engine(Detached()) as engine:
        trace = engine.trace(X)
        with pytest.raises(InputError, match="No gradient flows"):
            engine.unit_saliency(trace, "output", (1, 1))


def test_the_other_samples_of_the_batch_have_a_gradient_of_zero(engine: Engine) -> None:
    gradient = only(engine.unit_saliency(engine.trace(X), "2", (1, 2, 2), sample=1))
    assert gradient.shape == X.shape
    assert not gradient[0].any()
    assert gradient[1].any()


def test_a_saliency_tells_the_value_of_the_unit_and_its_epoch(engine: Engine) -> None:
    trace = engine.trace(X)
    found = engine.saliency(trace, "1", (1, 2, 2))
    assert found.value == float(trace.activation("1")[0, 1, 2, 2])
    assert (found.epoch, found.consistent) == (trace.epoch, True)


# -- kept graphs ---------------------------------------------------------------


class Counting(nn.Module):
    """Counts how often its forward runs, across twins."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()
        self.runs = _Counter()

    def forward(self, x: Tensor) -> Tensor:
        self.runs.count += 1
        return self.body(x)


class _Counter:
    count = 0

    def __deepcopy__(self, memo: object) -> _Counter:
        return self


def test_the_second_click_on_a_layer_runs_no_forward() -> None:
    model = Counting()
    with Engine(model) as engine:
        trace = engine.trace(X)
        engine.unit_saliency(trace, "body.1", (1, 2, 2))
        runs = model.runs.count
        for unit in [(1, 2, 2), (0, 5, 5), (3, 0, 1)]:
            for sample in (0, 1):
                engine.unit_saliency(trace, "body.1", unit, sample=sample)
        assert model.runs.count == runs == 2


def test_graphs_are_bounded_by_bytes_and_go_with_their_trace() -> None:
    model = Counting()
    with Engine(model) as engine:
        engine.memory_budget = 1 << 30
        trace = engine.trace(X)
        sizes = {}
        for layer in ("body.0", "body.1", "body.2"):
            engine.unit_saliency(trace, layer, (1, 2, 2))
            sizes[layer] = engine._units.nbytes - sum(sizes.values())
        # Two samples: what the convolution saves is its input and what it gave; all float32.
        assert sizes["body.0"] == 4 * (2 * 3 * 8 * 8 + 2 * 4 * 6 * 6)
        engine.memory_budget = sizes["body.2"] + sizes["body.1"]
        engine.unit_saliency(trace, "body.2", (1, 2, 2))  # used last
        engine.unit_saliency(trace, "body.1", (1, 2, 2))
        runs = model.runs.count
        engine.unit_saliency(trace, "body.0", (1, 2, 2))
        assert model.runs.count == runs + (sizes["body.0"] > 0)
        assert engine._units.nbytes <= engine.memory_budget
        del trace
        assert engine._units.nbytes == 0
        engine.memory_budget = 0
        trace = engine.trace(X)
        engine.unit_saliency(trace, "body.1", (1, 2, 2))
        assert engine._units.nbytes == 0
        with pytest.raises(InputError, match="number of bytes"):
            engine.memory_budget = -1


def test_weights_are_not_counted_as_memory_of_a_graph() -> None:
    with Engine(nn.Sequential(nn.Linear(3, 1000))) as engine:
        engine.unit_saliency(engine.trace(torch.randn(1, 3)), "0", 1)
        trace = engine.trace(torch.randn(1, 3))
        engine.unit_saliency(trace, "0", 1)
        assert 0 < engine._units.nbytes < 3 * 1000 * 4


def test_an_activation_that_was_let_go_is_computed_again_while_the_weights_are_the_same() -> None:
    model = Counting()
    with Engine(model) as engine:
        expected = engine.trace(X).activation("body.1").clone()
        engine.memory_budget = 0
        trace = engine.trace(X)
        runs = model.runs.count
        assert torch.equal(trace.activation("body.1"), expected)
        assert model.runs.count == runs + 1
        with torch.no_grad():
            model.body[0].weight.add_(1)
        with pytest.raises(StaleError, match="have changed"):
            trace.activation("body.0")
    with pytest.raises(InputError, match="closed"):
        trace.activation("body.2")


# -- weights that move ---------------------------------------------------------------


def test_after_a_training_step_the_answer_is_that_of_the_new_weights(
    model: nn.Sequential, engine: Engine
) -> None:
    trace = engine.trace(X)
    old = engine.saliency(trace, "1", (1, 2, 2))
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert engine.epoch == trace.epoch + 1
    new = engine.saliency(trace, "1", (1, 2, 2))
    assert (new.epoch, new.consistent) == (trace.epoch + 1, True)
    torch.testing.assert_close(only(new.values), only(old.values) * 2)


def test_a_write_through_data_is_seen_by_the_next_click(model: nn.Sequential, engine: Engine) -> None:
    trace = engine.trace(X)
    old = only(engine.unit_saliency(trace, "1", (1, 2, 2)))
    model[0].weight.data.mul_(2)
    torch.testing.assert_close(only(engine.unit_saliency(trace, "1", (1, 2, 2))), old * 2)


def test_refresh_reads_the_weights_anew(model: nn.Sequential, engine: Engine) -> None:
    trace = engine.trace(X)
    assert engine.refresh() == trace.epoch + 1
    assert engine.epoch == trace.epoch + 1


class Disturbed(nn.Module):
    """Lets a test change the user's weights in the middle of the engine's pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)
        self.between = _Between()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.between()
        return self.b(y)


class _Between:
    steps = 0
    model: Disturbed | None = None

    def __deepcopy__(self, memo: object) -> _Between:
        return self

    def __call__(self) -> None:
        if self.model is not None and self.steps:
            self.steps -= 1
            # What the forward itself writes would be kept from the weights; training is another thread's.
            thread = threading.Thread(target=self.step, args=(self.model,))
            thread.start()
            thread.join(PATIENCE)

    @torch.no_grad()
    def step(self, model: Disturbed) -> None:
        model.a.weight.add_(1)
        model.b.weight.add_(1)


def test_a_pass_in_which_the_weights_move_is_done_again_on_a_copy_that_cannot() -> None:
    model = Disturbed()
    x = torch.randn(2, 3)
    with Engine(model) as engine:
        first = engine.trace(x)
        model.between.model, model.between.steps = model, 1000
        trace = engine.trace(x)
        assert trace.consistent
        assert trace.epoch > first.epoch
        # The pass on the copy moved the weights on once more, after the copy was made.
        a, b = model.a.weight - 1, model.b.weight - 1
        torch.testing.assert_close(trace.output, x @ a.T @ b.T)
        found = engine.saliency(trace, "b", 1, sample=1)
        model.between.steps = 0
        assert found.consistent
        assert found.epoch > trace.epoch
        a, b = model.a.weight - 1, model.b.weight - 1
        torch.testing.assert_close(only(found.values)[1], (b @ a)[1])
        still = engine.saliency(trace, "b", 1, sample=1)
        assert still.consistent
        torch.testing.assert_close(only(still.values)[1], (model.b.weight @ model.a.weight)[1])


def test_weights_that_never_hold_still_are_admitted(
    model: nn.Sequential, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnviz_widget.engine import twin

    class NeverStill(twin.Probe):
        """As if the optimiser wrote between every two looks."""

        def changed(self) -> bool:
            return True

    monkeypatch.setattr(twin, "Probe", NeverStill)
    engine.refresh()
    trace = engine.trace(X)
    assert not trace.consistent
    assert not engine.saliency(trace, "1", (1, 2, 2)).consistent


# -- threads ---------------------------------------------------------------


def test_a_cancel_stops_a_forward_at_its_next_operation() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.started = _Shared()

        def forward(self, x: Tensor) -> Tensor:
            self.started.event.set()
            while True:
                x = x + 1

    model = Long()
    with Engine(model) as engine:
        job = engine.jobs.submit(lambda token: engine.trace(X))
        assert model.started.event.wait(PATIENCE)
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(PATIENCE)


class _Shared:
    def __init__(self) -> None:
        self.event = threading.Event()

    def __deepcopy__(self, memo: object) -> _Shared:
        return self


def test_a_cancel_stops_in_the_middle_of_a_backward_and_the_graph_can_still_be_used(engine: Engine) -> None:
    from nnviz_widget.engine import units

    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_CHUNK_SECONDS", 1e-9)  # look for a cancel at every node
        trace = engine.trace(X)
        expected = only(engine.unit_saliency(trace, "2", (1, 2, 2)))

    class AtTheThirdLook:
        def check(self) -> None:
            seen.append(1)
            if len(seen) == 3:
                raise Cancelled

    graph = engine._units._graphs[id(trace), "2"]
    with pytest.raises(Cancelled):
        graph.gradient((0, 1, 2, 2), AtTheThirdLook())  # type: ignore[arg-type]
    assert len(seen) == 3
    assert torch.equal(only(engine.unit_saliency(trace, "2", (1, 2, 2))), expected)


def test_progress_is_told_while_a_trace_runs(engine: Engine) -> None:
    told: list[tuple[int, int]] = []
    engine.progress = lambda done, total: told.append((done, total))
    engine.trace(X)
    assert told == [(i, 6) for i in range(1, 7)]


def test_the_engine_computes_with_the_callers_number_of_threads(engine: Engine) -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            seen: list[int] = []
            engine.progress = lambda done, total, seen=seen: seen.append(torch.get_num_threads())
            engine.trace(X)
            assert set(seen) == {count}
    finally:
        torch.set_num_threads(before)


def test_questions_from_many_threads_get_their_own_answers(engine: Engine) -> None:
    trace = engine.trace(X)
    layers = {"0": (1, 2, 2), "1": (3, 0, 1), "2": (0, 5, 5), "4": (3,)}
    expected = {layer: only(engine.unit_saliency(trace, layer, unit)) for layer, unit in layers.items()}
    wrong: list[str] = []

    def ask(layer: str) -> None:
        for _ in range(10):
            if not torch.equal(only(engine.unit_saliency(trace, layer, layers[layer])), expected[layer]):
                wrong.append(layer)
            trace.activation(layer)

    threads = [threading.Thread(target=ask, args=(layer,)) for layer in layers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []


def test_a_closed_engine_refuses_and_its_traces_stay_readable(model: nn.Sequential) -> None:
    engine = Engine(model)
    trace = engine.trace(X)
    engine.close()
    engine.close()
    with pytest.raises(ClosedError, match="Make a new one"):
        engine.trace(X)
    with pytest.raises(ClosedError), engine.paused():
        engine.unit_saliency(trace, "0", (1, 2, 2))
    assert trace.activation("0").shape == (2, 4, 6, 6)
    assert repr(engine) == "Engine(Sequential, closed)"


def test_closing_cancels_what_runs() -> None:
    class Endless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.started = _Shared()

        def forward(self, x: Tensor) -> Tensor:
            self.started.event.set()
            while True:
                x = x + 1

    model = Endless()
    engine = Engine(model)

    def work(token: CancelToken) -> Any:
        return engine.trace(X)

    job = engine.jobs.submit(work)
    assert model.started.event.wait(PATIENCE)
    engine.close()
    with pytest.raises(Cancelled):
        job.result(PATIENCE)
