"""Train the bundled demo networks and store their weights beside them.

    .venv/bin/python scripts/train_demo.py            # both
    .venv/bin/python scripts/train_demo.py shapes     # one

Seeded; some minutes on two cores. The shapes network sees each picture once, drawn while it learns; the
digits network sees slightly turned, shifted and scaled copies of three quarters of scikit-learn's digits.
Accuracy is measured on the stored weights and on samples that were never trained on.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from nnviz_widget import demo
from nnviz_widget.demo.drawing import CLASSES, random_pictures
from nnviz_widget.demo.networks import DigitsNet, ShapesNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Batches = Iterator[tuple[Tensor, Tensor]]

BATCH = 64
UNSEEN_SEED = 2_000_000
"""Far from every seed that training draws from, and from the seed of the bundled samples."""


def fit(model: nn.Module, batches: Batches, steps: int, *, lr: float, weight_decay: float) -> None:
    """Train with a warm-up and a cosine, then leave the average of the last weights in the model."""
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    # An average of late weights has smoother filters than the last step alone.
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    start, seen, right = time.perf_counter(), 0, 0
    for step in range(1, steps + 1):
        inputs, targets = next(batches)
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits, targets, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        seen += len(targets)
        right += int((logits.argmax(1) == targets).sum())
        if step % 50 == 0 or step == steps:
            line = f"  step {step}/{steps}  loss {loss.item():.3f}  accuracy {right / seen:.3f}"
            print(f"{line}  {(time.perf_counter() - start) / 60:.1f} min")
            seen = right = 0
    model.load_state_dict(average.module.state_dict())
    model.eval().to(memory_format=torch.contiguous_format)


def store(model: nn.Module, name: str) -> None:
    """Write half-precision weights; biases and statistics keep all their digits."""
    state = {
        key: value.half().contiguous() if value.dim() > 1 else value.contiguous()
        for key, value in model.state_dict().items()
    }
    path = demo.WEIGHTS / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(state, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


@torch.inference_mode()
def report(model: nn.Module, inputs: Tensor, targets: Tensor, names: list[str]) -> None:
    """Print the accuracy on unseen samples, the mistakes, and channels that never speak."""
    silent: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(_note_silent(silent, path))
    predicted = torch.cat([model(part).argmax(1) for part in inputs.split(256)])
    wrong: dict[str, int] = defaultdict(int)
    for true, said in zip(targets.tolist(), predicted.tolist(), strict=True):
        if true != said:
            wrong[f"{names[true]} taken for {names[said]}"] += 1
    accuracy = (predicted == targets).double().mean().item()
    print(f"accuracy on {len(targets)} unseen samples: {accuracy:.4f}")
    print("mistakes:", ", ".join(f"{count}x {what}" for what, count in sorted(wrong.items())) or "none")
    print("channels that are never active:", {path: int(dead.sum()) for path, dead in silent.items()})


def _note_silent(silent: dict[str, Tensor], path: str) -> Callable[[nn.Module, object, Tensor], None]:
    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        quiet = (output.transpose(0, 1).flatten(1) == 0).all(1)
        silent[path] = silent.get(path, quiet) & quiet

    return note


def drawn_batches() -> Batches:
    """Yield fresh pictures for ever; no picture comes twice."""
    seed = 1_000
    while True:
        drawn = random_pictures(BATCH, seed=seed)
        yield demo.normalize_pictures(drawn.images), torch.from_numpy(drawn.labels)
        seed += 1


def train_shapes(steps: int) -> None:
    """Train, store and measure the residual network on shapes."""
    torch.manual_seed(0)
    model = ShapesNet(len(CLASSES))
    fit(model, drawn_batches(), steps, lr=4e-3, weight_decay=0.05)
    store(model, "shapes")
    unseen = random_pictures(2000, seed=UNSEEN_SEED)
    trained = demo.shapes()
    report(
        trained.model,
        demo.normalize_pictures(unseen.images),
        torch.from_numpy(unseen.labels),
        trained.class_names,
    )


def digit_halves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, held-out images and their targets; images are ``[N, 8, 8]``, 0 to 16."""
    data = load_digits()
    parts = train_test_split(data.images, data.target, test_size=0.25, random_state=0, stratify=data.target)
    seen, unseen, seen_targets, unseen_targets = map(torch.from_numpy, parts)
    return seen, unseen, seen_targets, unseen_targets


def shaken_batches(images: Tensor, targets: Tensor) -> Batches:
    """Yield enlarged digits, each a little turned, shifted, scaled and slanted."""
    inputs = demo.enlarge_digits(images)
    while True:
        for chosen in torch.randperm(len(inputs)).split(BATCH)[:-1]:
            turn = torch.eye(2, 3).repeat(len(chosen), 1, 1)
            turn[:, :, :2] += 0.12 * torch.randn(len(chosen), 2, 2)
            turn[:, :, 2] = 0.1 * torch.randn(len(chosen), 2)
            grid = affine_grid(turn, [len(chosen), 1, 32, 32], align_corners=False)
            shaken = grid_sample(inputs[chosen], grid, align_corners=False)
            yield shaken + 0.03 * torch.randn_like(shaken), targets[chosen]


def train_digits(steps: int) -> None:
    """Train, store and measure the plain network on digits, and store twenty held-out ones."""
    seen, unseen, seen_targets, unseen_targets = digit_halves()
    torch.manual_seed(1)
    model = DigitsNet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # torch's default is so small that some channels die at once
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    fit(model, shaken_batches(seen, seen_targets), steps, lr=1e-3, weight_decay=0.05)
    store(model, "digits")
    chosen = torch.cat([(unseen_targets == digit).nonzero()[:2, 0] for digit in range(10)])
    chosen = chosen.view(10, 2).T.reshape(-1)
    samples = {"images": unseen[chosen].to(torch.uint8), "targets": unseen_targets[chosen].to(torch.uint8)}
    save_file(
        {key: value.contiguous() for key, value in samples.items()},
        demo.WEIGHTS / "digits_samples.safetensors",
    )
    trained = demo.digits()
    report(trained.model, demo.enlarge_digits(unseen), unseen_targets, trained.class_names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=["digits", "shapes"], metavar="digits|shapes")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the usual number")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if "digits" in options.networks:
        print("digits")
        train_digits(options.steps or 1500)
    if "shapes" in options.networks:
        print("shapes")
        train_shapes(options.steps or 1000)


if __name__ == "__main__":
    main()
