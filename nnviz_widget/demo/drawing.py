"""Pictures of shapes, drawn from a seed: ten classes on textured backgrounds with small distractors.

Everything is a signed distance (negative inside) in numpy, so edges are anti-aliased, the mask of the object
is exact, and no file has to be shipped. Picture ``i`` of a seed depends on the seed and on ``i`` alone. Here
lives the drawing; the network that looks at it is in ``networks``, the choice of samples in ``demo``.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CLASSES", "Pictures", "draw", "random_pictures"]

Floats: TypeAlias = NDArray[np.floating[Any]]
Distance: TypeAlias = "Callable[[Floats, Floats], Floats]"


@dataclass(frozen=True)
class Pictures:
    """A batch of drawn pictures.

    Attributes
    ----------
    images : uint8 array [N, size, size, 3]
        Red, green and blue, 0 to 255.
    labels : int64 array [N]
        Index of the object's class in `CLASSES`.
    masks : bool array [N, size, size]
        True where the object covers at least half of the pixel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]


def _clamp(values: Floats) -> Floats:
    clamped: Floats = np.clip(values, 0, 1)
    return clamped


# --- shapes: distances in units of the object's radius, x to the right, y up --------------------------------


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 0.9


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - 0.74) - 0.22


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    across, along = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
    return outside + np.minimum(np.maximum(across, along), 0)


def _square(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 0.74, 0.74) - 0.06


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 0.9, 0.26), _box(x, y, 0.26, 0.9)) - 0.04


def _crescent(x: Floats, y: Floats) -> Floats:
    disc, bite = np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.42, y - 0.12)
    return np.where(disc > bite, disc, bite)


def _heart(x: Floats, y: Floats) -> Floats:
    # Two arcs and a tip, after Inigo Quilez; his heart stands on the origin and is about one unit tall.
    x, y = np.abs(x) / 1.7, y / 1.7 + 0.56
    lobe = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    slope = 0.5 * np.maximum(x + y, 0)
    tip = np.minimum(np.hypot(x, y - 1), np.hypot(x - slope, y - slope)) * np.sign(x - y)
    return 1.7 * np.where(x + y > 1, lobe, tip)


def _polygon(corners: Sequence[tuple[float, float]], rounding: float = 0.04) -> Distance:
    """Return the distance to a polygon with slightly rounded corners."""
    points = np.array(corners, np.float32)
    edges = np.roll(points, 1, axis=0) - points

    def distance(x: Floats, y: Floats) -> Floats:
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, np.bool_)
        for (px, py), (ex, ey) in zip(points, edges, strict=True):
            dx, dy = x - px, y - py
            along = _clamp((dx * ex + dy * ey) / (ex * ex + ey * ey))
            nearest = np.minimum(nearest, (dx - along * ex) ** 2 + (dy - along * ey) ** 2)
            # Crossing number: an edge to the right that spans y flips inside and outside.
            crosses = (dy >= 0) != (dy >= ey)
            inside ^= crosses & ((dx * ey < dy * ex) == (ey > 0))
        return np.sqrt(nearest) * np.where(inside, -1, 1).astype(np.float32) - np.float32(rounding)

    return distance


def _spokes(count: int, *radii: float) -> list[tuple[float, float]]:
    """Return corners at equal angles from the top, their radii taken in turn."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(count) / count
    return [
        (float(radii[i % len(radii)] * np.cos(a)), float(radii[i % len(radii)] * np.sin(a)))
        for i, a in enumerate(angles)
    ]


_ARROW = [(0, 0.95), (0.8, 0.1), (0.32, 0.1), (0.32, -0.9), (-0.32, -0.9), (-0.32, 0.1), (-0.8, 0.1)]

_SHAPES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon(_spokes(3, 1.02)),
    "star": _polygon(_spokes(10, 1.02, 0.44)),
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "crescent": _crescent,
    "hexagon": _polygon(_spokes(6, 0.94)),
    "arrow": _polygon(_ARROW),
}

CLASSES: tuple[str, ...] = tuple(_SHAPES)
"""Names of the classes, in the order of the network's outputs."""


# --- the scene ----------------------------------------------------------------------------------------------


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    return np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)), np.float32
    )


def _contrasting(rng: np.random.Generator, background: Floats) -> Floats:
    """Return a vivid colour that stands out from the background for eyes that see no hue as well."""
    luma = np.array([0.3, 0.59, 0.11], np.float32)
    best = _colour(rng, (0.55, 0.95), (0.35, 1.0))
    for _ in range(8):
        if abs(float((best - background) @ luma)) > 0.16 and float(np.abs(best - background).max()) > 0.35:
            break
        best = _colour(rng, (0.45, 0.95), (0.25, 1.0))
    return best


def _paint(image: Floats, colour: Floats, cover: Floats) -> Floats:
    return image + cover[..., None] * (colour - image)


def _texture(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Return a pattern between 0 and 1: a ramp, stripes, checks, dots or clouds."""
    kind = rng.integers(5)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        return _clamp(0.5 + u / len(x))
    if kind == 1:
        return _clamp(0.5 + 1.6 * np.sin(2 * np.pi * u / period))
    if kind == 2:
        checks = np.sin(np.pi * u / period) * np.sin(np.pi * v / period)
        return _clamp(0.5 + 5 * checks)
    if kind == 3:
        cell_u, cell_v = (u % period) - period / 2, (v % period) - period / 2
        return _clamp(period * 0.22 + 0.5 - np.hypot(cell_u, cell_v))
    waves = np.zeros_like(x)
    for _ in range(5):
        kx, ky = rng.normal(0, 0.13, 2)
        waves += np.sin(kx * x + ky * y + rng.uniform(0, 2 * np.pi)).astype(np.float32)
    return _clamp(0.5 + 0.25 * waves)


def _distractor(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Return the distance, in pixels, to something small that belongs to no class: dot, dash or arc."""
    half = len(x) / 2
    x, y = x - rng.uniform(-half, half), y - rng.uniform(-half, half)
    angle, kind = rng.uniform(0, 2 * np.pi), rng.integers(3)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    width = rng.uniform(0.8, 1.8)
    if kind == 0:
        return np.hypot(x, y) - rng.uniform(1.2, 3.0)
    if kind == 1:
        length = rng.uniform(2, 6)
        return np.hypot(x - np.clip(x, -length, length), y) - width
    radius = rng.uniform(3, 6)
    return np.maximum(np.abs(np.hypot(x, y) - radius) - width, -y)


def _scene(label: int, rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    axis = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = np.meshgrid(axis, -axis)
    scale = size / 64

    first = _colour(rng, (0.05, 0.5), (0.25, 0.95))
    second = _clamp(first + rng.uniform(-0.22, 0.22, 3)).astype(np.float32)
    image = _paint(np.broadcast_to(first, (size, size, 3)), second, _texture(rng, x / scale, y / scale))
    for _ in range(rng.integers(3, 9)):
        away = _distractor(rng, x / scale, y / scale) * scale
        image = _paint(image, _colour(rng, (0.2, 0.9), (0.2, 1.0)), _clamp(0.5 - away))

    radius = rng.uniform(13, 22) * scale
    turn, reach = rng.normal(0, 0.25), 31 * scale - radius
    cx, cy = rng.uniform(-reach, reach, 2)
    u, v = (x - cx) / radius, (y - cy) / radius
    u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    distance = _SHAPES[CLASSES[label]](u.astype(np.float32), v.astype(np.float32)) * radius
    cover = _clamp(0.5 - distance)

    colour = _contrasting(rng, (first + second) / 2)
    if rng.random() < 0.5:  # a soft shadow below
        drop = round(rng.uniform(1, 3) * scale)
        fall = np.roll(distance, (drop, drop), axis=(0, 1))
        image = _paint(image, image * 0.55, _clamp(0.5 - fall / 3) * 0.7)
    light = 1 + rng.uniform(0, 0.35) * np.clip((v - 0.3 * u) / 1.4, -1, 1)
    body = _clamp(colour * light[..., None])
    image = image + cover[..., None] * (body - image)
    if rng.random() < 0.35:  # an outline, just inside the edge
        rim = _clamp(0.5 - (np.abs(distance + 1.2 * scale) - 0.9 * scale))
        image = _paint(image, colour * 0.45, rim)
    image = image + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    return (_clamp(image) * 255 + 0.5).astype(np.uint8), cover >= 0.5


def draw(labels: Sequence[int], *, seed: int, size: int = 64) -> Pictures:
    """Draw one picture for each label.

    Parameters
    ----------
    labels : sequence of int
        Index in `CLASSES` of the object in each picture.
    seed : int
        Picture ``i`` is a function of the seed, of ``i`` and of its label.
    size : int, default 64
        Height and width in pixels.

    Returns
    -------
    Pictures
        Images, labels and masks of the objects.
    """
    scenes = [_scene(label, np.random.default_rng([seed, i]), size) for i, label in enumerate(labels)]
    return Pictures(
        np.stack([image for image, _ in scenes]),
        np.asarray(labels, np.int64),
        np.stack([mask for _, mask in scenes]),
    )


def random_pictures(count: int, *, seed: int, size: int = 64) -> Pictures:
    """Draw ``count`` pictures of classes chosen at random, all classes being equally likely."""
    labels = np.random.default_rng([seed, 2**32 - 1]).integers(len(CLASSES), size=count)
    return draw(labels.tolist(), seed=seed, size=size)
