"""The twin shares every tensor of the user's model and nothing else, follows it, and counts its changes."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nnviz_widget.engine.twin import Twin
from nnviz_widget.errors import InputError


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)
    )


def state(model: nn.Module) -> list[Any]:
    """Everything about the modules that must not change, as comparable values."""
    found: list[Any] = []
    for name, module in model.named_modules():
        found.append((name, id(module), module.training))
        found += [
            (name, key, id(value), list(value) if isinstance(value, (dict, list)) else None)
            for key, value in vars(module).items()
        ]
    for tensor in (*model.parameters(), *model.buffers()):
        found.append((id(tensor), tensor.data_ptr(), tensor._version, tensor.requires_grad, id(tensor.grad)))
    return found


def run(twin: Twin, *inputs: Tensor) -> Tensor:
    with torch.no_grad(), twin.running():
        return twin.module(*inputs)


def plain(model: nn.Module, *inputs: Tensor) -> Tensor:
    """Run the user's model the way the user would to see eval results."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        output = model(*inputs)
    for module, flag in flags.items():
        module.training = flag
    return output


def test_every_tensor_is_the_same_object_and_no_module_is() -> None:
    model = small()
    twin = Twin(model)
    ours, theirs = dict(twin.module.named_parameters()), dict(model.named_parameters())
    ours.update(twin.module.named_buffers())  # type: ignore[arg-type]
    theirs.update(model.named_buffers())  # type: ignore[arg-type]
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in theirs)
    assert not {id(m) for m in twin.module.modules()} & {id(m) for m in model.modules()}
    assert twin.shared
    assert twin.note == ""


def test_the_twin_is_in_eval_mode_while_the_model_trains_on_untouched() -> None:
    model = small().train()
    before = state(model)
    twin = Twin(model)
    twin.sync()
    run(twin, torch.randn(2, 3, 9, 9))
    assert not any(module.training for module in twin.module.modules())
    assert state(model) == before


def test_a_train_method_with_side_effects_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            self.weight.data += 1  # as LoRA layers do
            return super().train(mode)

    model = nn.Sequential(Merging(2, 2))
    weight = model[0].weight.clone()
    Twin(model).sync()
    assert torch.equal(model[0].weight, weight)


class Scale(nn.Module):
    """A module in a plain list, a bound method, a lambda, tensors that are no parameters, and a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.hidden = [nn.Linear(3, 3)]
        self.method = self.helper
        self.closure = lambda x: self.inner(1 * x)
        self.partial = functools.partial(Scale.helper, self)
        self.plain = torch.ones(3)
        self.computed = self.inner.weight.sum(0)  # has a grad_fn: refuses to be copied
        self.listed = [nn.Parameter(torch.ones(3))]
        self.lock = threading.Lock()
        self.calls: list[nn.Module] = []

    def helper(self, x: Tensor) -> Tensor:
        self.calls.append(self)
        return self.inner(x)

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            x = self.method(x) + self.closure(x) + self.partial(x)
            return self.hidden[0](x) * self.plain * self.computed * self.listed[0]


def test_methods_lambdas_partials_and_hidden_modules_of_the_twin_are_its_own() -> None:
    model = Scale().eval()
    twin = Twin(model)
    x = torch.randn(2, 3)
    called = []
    for module in twin.module.modules():
        module.register_forward_hook(lambda module, args, output: called.append(module))
    with torch.no_grad():
        assert torch.equal(run(twin, x), model(x))
    assert len(called) == 4  # the root, and the inner one by method, closure and partial
    assert twin.module.hidden[0] is not model.hidden[0]
    assert twin.module.hidden[0].weight is model.hidden[0].weight
    assert twin.module.plain is model.plain
    assert twin.module.computed is model.computed
    assert twin.module.listed[0] is model.listed[0]
    assert twin.shared


def test_what_the_forward_keeps_for_later_stays_out_of_the_users_model_and_does_not_pile_up() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.maps: list[Tensor] = []
            self.state = torch.zeros(3)
            self.count = 0

        def forward(self, x: Tensor) -> Tensor:
            self.maps.append(x)
            self.count += 1
            self.last = x
            self.state = self.state + self.inner(x).mean(0)
            return self.state

    model = Keeps().eval()
    twin = Twin(model)
    x = torch.randn(2, 3)
    first = run(twin, x)
    for _ in range(3):
        twin.sync()
        assert torch.equal(run(twin, x), first)  # each pass starts from the state of the user's model
    assert (model.maps, model.count, hasattr(model, "last")) == ([], 0, False)
    assert (twin.module.maps, twin.module.count, hasattr(twin.module, "last")) == ([], 0, False)
    epoch = twin.sync()
    with torch.no_grad():
        model(x)
    assert twin.sync() == epoch  # results that the forward leaves behind are no change of the model
    with torch.no_grad():
        assert torch.equal(run(twin, x), model(x))  # yet a state is followed


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    twin = Twin(model)
    assert twin.module[0].weight is twin.module[1].weight is model[0].weight
    _, copies = twin.module, twin.frozen()[0]
    assert copies[0].weight is copies[1].weight
    assert copies[0].weight is not model[0].weight


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4, batch_first=True),
        lambda: parametrizations.weight_norm(nn.Linear(3, 4)),
        lambda: nn.utils.weight_norm(nn.Linear(3, 4)),
        lambda: nn.utils.spectral_norm(nn.Linear(3, 4)),
        lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU())),
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(3, 1, 5, batch_first=True), 2, enable_nested_tensor=False
        ),
        lambda: nn.MultiheadAttention(3, 1, batch_first=True),
        lambda: nn.Sequential(torch.compile(nn.Linear(3, 4), backend="eager"), nn.ReLU()),
        lambda: torch.compile(nn.Sequential(nn.Linear(3, 4)), backend="eager"),
        lambda: nn.DataParallel(nn.Linear(3, 4)),
    ],
    ids=["lstm", "weight norm", "old weight norm", "spectral norm", "fx", "encoder", "attention",
         "part compiled", "compiled", "parallel"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_twin_computes_what_the_model_computes_before_and_after_training(make: Any) -> None:
    torch.manual_seed(0)
    model = make().train()
    twin = Twin(model)
    assert twin.shared, twin.note
    x = torch.randn(2, 5, 3)
    inputs = (x, x, x) if isinstance(model, nn.MultiheadAttention) else (x,)

    def first(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    for _ in range(2):
        twin.sync()
        with torch.no_grad(), twin.running():
            torch.testing.assert_close(
                first(twin.module(*inputs)), first(plain(model, *inputs)), rtol=0, atol=0
            )
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        first(model(*inputs)).square().sum().backward()
        optimizer.step()
    assert not [name for name, _ in twin.module.named_modules() if "_orig_mod" in name]


def rebind(model: nn.Sequential) -> None:
    model.load_state_dict({k: v.clone() + 1 for k, v in model.state_dict().items()}, assign=True)


def replace(model: nn.Sequential) -> None:
    model[2] = nn.Sigmoid()


def append(model: nn.Sequential) -> None:
    model.append(nn.Softmax(1))


def retype(model: nn.Sequential) -> None:
    model.double()


def renumber(model: nn.Sequential) -> None:
    model[1].eps = 3.0


def hook(model: nn.Sequential) -> None:
    model[0].register_forward_hook(lambda module, args, output: output * 2)


def rebuffer(model: nn.Sequential) -> None:
    model[1].running_mean = torch.full((4,), 0.5)


def step(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[0].weight[1, 1].mul_(2)


def write_through_data(model: nn.Sequential) -> None:
    model[0].weight.data[3] = 0


def replace_data(model: nn.Sequential) -> None:
    model[0].weight.data = torch.ones_like(model[0].weight)


CHANGES = [rebind, replace, append, retype, renumber, hook, rebuffer, step, write_through_data, replace_data]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_is_followed_and_grows_the_epoch_once(change: Any) -> None:
    model = small()
    twin = Twin(model)
    before = twin.sync()
    assert twin.sync() == twin.read_epoch(probe=True) == before
    change(model)
    after = twin.sync()
    assert after == before + 1
    assert twin.sync() == after
    x = torch.randn(2, 3, 9, 9).to(model[0].weight.dtype)
    assert torch.equal(run(twin, x), plain(model, x))


@pytest.mark.parametrize(
    "change", [c for c in CHANGES if c is not write_through_data], ids=lambda c: c.__name__
)
def test_reading_the_epoch_alone_sees_every_change_that_moves_a_counter(change: Any) -> None:
    model = small()
    twin = Twin(model)
    before = twin.read_epoch()
    change(model)
    assert twin.read_epoch() > before


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}], ids=["foreach", "loop"])
def test_an_optimizer_step_grows_the_epoch(name: str, options: dict[str, Any]) -> None:
    model = small()
    twin = Twin(model)
    optimizer = getattr(torch.optim, name)(model.parameters(), 0.1, **options)
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    before = twin.read_epoch()
    optimizer.step()
    assert twin.read_epoch() > before


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_filter_written_through_data_is_seen(layout: torch.memory_format) -> None:
    model = nn.Conv2d(128, 256, 3).to(memory_format=layout)
    twin = Twin(model)
    for index in range(256):
        before = twin.sync()
        model.weight.data[index] = 0
        assert twin.sync() == before + 1, index


def test_gradients_and_flags_are_no_change_of_the_model() -> None:
    model = small().eval()
    twin = Twin(model)
    before = twin.sync()
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    model.zero_grad()
    model.train()
    model.requires_grad_(False)
    assert twin.sync() == before


def test_weights_made_in_inference_mode_have_no_counter_and_still_work() -> None:
    with torch.inference_mode():
        model = nn.Linear(3, 3)
    twin = Twin(model)
    before = twin.sync()
    with torch.inference_mode():
        model.weight.fill_(2)
    assert twin.sync() == before + 1
    with torch.inference_mode():
        assert torch.equal(twin.module(torch.ones(1, 3)), model(torch.ones(1, 3)))


def test_nan_weights_are_no_change() -> None:
    model = nn.Linear(3, 3)
    nn.init.constant_(model.weight, float("nan"))
    twin = Twin(model)
    assert twin.sync() == twin.sync()


def test_a_model_without_tensors_works() -> None:
    twin = Twin(nn.ReLU())
    assert twin.sync() == twin.sync()
    assert twin.device.type == "cpu"


def test_a_frozen_twin_is_out_of_reach_of_training() -> None:
    model = small().eval()
    x = torch.randn(1, 3, 9, 9)
    expected = plain(model, x)
    frozen, epoch, consistent = Twin(model).frozen()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with torch.no_grad():
        assert torch.equal(frozen(x), expected)
    assert consistent
    assert epoch == 0
    assert not any(p.requires_grad for p in frozen.parameters())


def test_on_another_device_the_twin_holds_copies_and_follows_them() -> None:
    model = small()
    twin = Twin(model, device="meta")
    assert {t.device.type for t in (*twin.module.parameters(), *twin.module.buffers())} == {"meta"}
    assert run(twin, torch.randn(2, 3, 9, 9, device="meta")).shape == (2, 2, 5, 5)
    model[0].weight.data = torch.ones(4, 3, 2, 2)
    twin.sync()
    assert run(twin, torch.randn(2, 3, 9, 9, device="meta")).shape == (2, 2, 6, 6)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        torch.rand(1)
        if x.shape[0] == 13:
            raise ZeroDivisionError
        return self.norm(self.scripted(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rows", [2, 13], ids=["success", "exception"])
def test_a_model_that_cannot_be_twinned_runs_itself_and_is_put_back(rows: int) -> None:
    model = Scripted().train()
    model.register_forward_hook(lambda module, args, output: None)
    twin = Twin(model)
    assert not twin.shared
    assert "TorchScript" in twin.note
    assert "do not train it at the same moment" in twin.note
    assert twin.module is model
    before, random = state(model), torch.get_rng_state()
    x = torch.randn(rows, 3)
    random = torch.get_rng_state()
    handle: Any = None
    try:
        with torch.no_grad(), twin.running():
            assert not model.scripted.training
            handle = model.norm.register_forward_hook(lambda module, args, output: None)
            model(x)
    except ZeroDivisionError:
        assert rows == 13
    assert state(model) == before
    assert model.scripted.training
    assert torch.equal(torch.get_rng_state(), random)
    assert handle is not None
    epoch = twin.sync()
    with torch.no_grad():
        model.norm.weight.add_(1)
    assert twin.sync() == epoch + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_twinned_cannot_be_moved_either() -> None:
    with pytest.raises(InputError, match="Move the model"):
        Twin(Scripted(), device="meta")


def test_the_structure_may_change_on_another_thread_while_the_twin_is_made() -> None:
    model = small()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            model.extra = 1
            del model.extra

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            Twin(model).sync()
    finally:
        stop.set()
        thread.join()


def test_nothing_keeps_the_model_alive_after_close() -> None:
    model = small()
    twin = Twin(model)
    run(twin, torch.randn(2, 3, 9, 9))
    twin.frozen()
    gone = [weakref.ref(model), weakref.ref(model[0].weight), weakref.ref(twin.module)]
    twin.close()
    del model
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]
