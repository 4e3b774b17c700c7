"""The bundled networks are as good, as small and as repeatable as their documentation says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from nnviz_widget import demo
from nnviz_widget.demo import drawing


@pytest.fixture(scope="module")
def shapes():
    return demo.shapes()


@pytest.fixture(scope="module")
def digits():
    return demo.digits()


@pytest.fixture(scope="module")
def unseen():
    """Pictures of a seed that neither training nor its own report ever drew from."""
    return drawing.random_pictures(512, seed=7_654_321)


@torch.inference_mode()
def run(model, inputs):
    """Return the classes that a network gives its inputs, and the largest answer of every channel."""
    largest = {}

    def note(module, _inputs, output):
        here = output.amax((0, *range(2, output.dim())))
        largest[module] = torch.maximum(largest.get(module, here), here)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.ReLU)]
    classes = torch.cat([model(part).argmax(1) for part in inputs.split(32)])  # quicker than all at once
    for hook in hooks:
        hook.remove()
    return classes, largest


@pytest.fixture(scope="module")
def answers(shapes, unseen):
    """What the network for shapes says to all unseen pictures: seconds, so once."""
    return run(shapes.model, demo.normalize_pictures(unseen.images))


def accuracy(classes, targets):
    return (classes == targets).double().mean().item()


def test_shapes_network_names_at_least_97_percent_of_unseen_pictures(answers, unseen):
    assert accuracy(answers[0], torch.from_numpy(unseen.labels)) >= 0.97


def test_digits_network_reads_at_least_98_percent_of_held_out_digits(digits):
    data = load_digits()
    _, images, _, targets = train_test_split(
        data.images, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    inputs = demo.enlarge_digits(torch.from_numpy(images))
    assert accuracy(run(digits.model, inputs)[0], torch.from_numpy(targets)) >= 0.98


def test_bundled_digits_are_held_out_ones(digits):
    data = load_digits()
    _, images, _, _ = train_test_split(
        data.images, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    held_out = demo.enlarge_digits(torch.from_numpy(images))
    for sample in digits.inputs:
        assert (held_out == sample).flatten(1).all(1).any()


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_samples_fit_the_network_and_its_class_names(name):
    bundled = getattr(demo, name)()
    logits = bundled.model(bundled.inputs)
    assert logits.shape == (len(bundled.inputs), len(bundled.class_names))
    assert bundled.inputs.dtype == torch.float32
    assert bundled.targets.shape == bundled.inputs.shape[:1]
    assert set(bundled.targets.tolist()) == set(range(len(bundled.class_names)))


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_network_comes_in_eval_mode_with_float32_weights(name):
    model = getattr(demo, name)().model
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_every_channel_speaks_to_some_sample(name, digits, answers):
    largest = answers[1] if name == "shapes" else run(digits.model, digits.inputs)[1]
    assert largest
    assert all((channel > 0).all() for channel in largest.values())


def test_weights_stay_below_one_megabyte_each():
    files = list(demo.WEIGHTS.glob("*.safetensors"))
    assert {file.stem for file in files} == {"shapes", "digits", "digits_samples"}
    assert all(file.stat().st_size < 1_000_000 for file in files)


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_two_calls_give_equal_but_separate_networks_and_samples(name):
    first, second = getattr(demo, name)(), getattr(demo, name)()
    assert torch.equal(first.inputs, second.inputs)
    with torch.no_grad():
        next(first.model.parameters()).zero_()
    assert next(second.model.parameters()).any()


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_denormalized_inputs_are_pictures_between_0_and_1(name):
    bundled = getattr(demo, name)()
    pictures = bundled.denormalize(bundled.inputs)
    assert pictures.shape == bundled.inputs.shape
    assert 0 <= pictures.min() < 0.1
    assert 0.9 < pictures.max() <= 1


def test_denormalize_gives_back_the_drawn_bytes(shapes):
    drawn = drawing.draw(shapes.targets.tolist(), seed=demo.SHAPES_SEED)
    pixels = (shapes.denormalize(shapes.inputs) * 255).round().to(torch.uint8)
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), drawn.images)


def test_a_picture_depends_on_seed_index_and_class_alone():
    few, many = drawing.draw([3, 1], seed=5), drawing.draw([3, 1, 4, 1], seed=5)
    assert np.array_equal(few.images, many.images[:2])
    assert np.array_equal(few.masks, many.masks[:2])
    assert not np.array_equal(many.images[1], many.images[3])
    assert not np.array_equal(few.images, drawing.draw([3, 1], seed=6).images)


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is the one that could be touched
    drawing.random_pictures(3, seed=0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("label", range(len(drawing.CLASSES)), ids=drawing.CLASSES)
def test_mask_covers_the_object_and_nothing_else(label):
    drawn = drawing.draw([label] * 8, seed=90)
    for image, mask in zip(drawn.images.astype(float), drawn.masks, strict=True):
        assert 0.02 < mask.mean() < 0.5
        inner = mask & np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)
        wide = mask.copy()
        for axis in (0, 1):
            for step in (-3, -2, -1, 1, 2, 3):
                wide |= np.roll(mask, step, axis)
        inside, around = image[inner].mean(0), image[wide & ~mask].mean(0)
        assert np.abs(inside - around).max() > 20  # the object stands out from what surrounds its mask
        assert image[inner].std(0).max() < 55  # and is one thing: a hole would show as a second colour


def test_ring_has_its_hole_and_crescent_its_bite():
    ring, crescent = drawing.CLASSES.index("ring"), drawing.CLASSES.index("crescent")
    for mask in drawing.draw([ring, crescent] * 4, seed=3).masks:
        rows, columns = np.nonzero(mask)
        centre = mask[int((rows.min() + rows.max()) / 2), int((columns.min() + columns.max()) / 2)]
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert not centre or mask.sum() / box < 0.6


def test_area_of_the_circle_mask_is_that_of_its_radius():
    circle = drawing.CLASSES.index("circle")
    for mask in drawing.draw([circle] * 8, seed=1).masks:
        height = np.ptp(np.nonzero(mask)[0]) + 1
        assert mask.sum() == pytest.approx(np.pi * (height / 2) ** 2, rel=0.06)
