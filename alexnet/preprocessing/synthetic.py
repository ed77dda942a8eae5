"""The stand-in: images computed from a seed alone. Nothing measured on them is a result about photographs.

Dead leaves, things of many sizes that hide one another, have the edges and the 1/f spectrum of natural images (Lee, Mumford
& Huang 2001, "Occlusion models for natural images"), and nets learn useful features from them (Baradad et al. 2021,
"Learning to see by looking at noise"). In such a scene stand two objects of the image's class, a small and a large one. A
class is a shape and a pattern. Place, size, tilt, light, what hides what, and nearly all of the colour are nuisance.

The bytes are the same on every machine: each step is a raw draw of a Philox generator or one correctly rounded operation on
float32 (+, -, *, /, a comparison, floor). Shapes: N images, H, W pixels, 3 colours in front. Lengths are fractions of the
image's side unless said otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from alexnet import randomness

PIXELS_AT_ONCE = 2**16  # images are computed in blocks of about so many pixels, which fit a processor's cache
NUM_DRAWS = 256  # 16-bit draws of each image, more than it uses
NUM_ANGLES = 256  # in a full turn
OCTAVE_FALL = 0.8  # what is coarser, relative to each finer octave that is added: 1 would be 1/f in the noise alone
TIE = 14  # grey levels by which an object's colour leans to its class's hue, as a frog is rather green than red
# Why: rounded to integers, so that a sine that differs in its last bit between two machines gives the same table.
SINES = np.array([round(4096 * math.sin(2 * math.pi * k / NUM_ANGLES)) for k in range(NUM_ANGLES)], np.float32) / 4096

Field = np.ndarray  # (N, H, W) float32


def _wave(t: Field) -> Field:
    """Return stripes of period 1 between -1 and 1, their edges softened."""
    return np.clip(abs(2 * (t - np.floor(t)) - 1) * 6 - 3, -1, 1)


# Each takes u (rightwards) and v (downwards) and gives about the distance to the outline, positive inside.
SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": lambda u, v: (1 - u * u - v * v) / 2,
    "ring": lambda u, v: np.minimum((1 - u * u - v * v) / 2, u * u + v * v - 0.2),
    "square": lambda u, v: 0.8 - np.maximum(abs(u), abs(v)),
    "triangle": lambda u, v: np.minimum(0.7 - v, (v + 1) * 0.5 - abs(u) * 0.85),
    "cross": lambda u, v: np.minimum(0.36 - np.minimum(abs(u), abs(v)), 1 - np.maximum(abs(u), abs(v))),
}
# Each takes u and v in periods.
PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "striped across": lambda u, v: _wave(v),
    "striped along": lambda u, v: _wave(u),
    "checked": lambda u, v: _wave(u * 0.75) * _wave(v * 0.75),
    "striped aslant": lambda u, v: _wave((u + v) * 0.7),
}


@dataclass(frozen=True)
class Spec:
    """A stand-in set: its size, and how hard it is."""

    name: str  # formula32 stands in for CIFAR-10, formula256 for ILSVRC
    side: int  # pixels
    patterns: tuple[str, ...]  # each shape with each of these is a class
    stripes: tuple[float, float]  # periods of a pattern in an object's radius, least and most
    radius: tuple[float, float]  # of the large object, least and most
    centre: float  # how far at most it is off the middle, rightwards and downwards
    seed: int = 2012

    @property
    def classes(self) -> tuple[str, ...]:
        """What each class shows, in words."""
        return tuple(f"{shape} {pattern}" for pattern in self.patterns for shape in SHAPES)


# Why these values: the ReLU net of Figure 1 at half width reaches 25 % training error in about 6 epochs, while a linear
# classifier on the pixels stays above 60 % test error.
SMALL = Spec("formula32", 32, tuple(PATTERNS)[:2], (1.3, 1.9), (0.34, 0.40), 0.08)
LARGE = Spec("formula256", 256, tuple(PATTERNS), (2.0, 5.0), (0.26, 0.40), 0.10)
SPECS = {spec.name: spec for spec in (SMALL, LARGE)}


def generate(spec: Spec, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of a split, (count, side, side, 3) uint8, and their labels (count,) int64.

    Image i depends on (spec, split, i) alone. The classes take turns, so they are balanced.
    """
    images = np.empty((count, spec.side, spec.side, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(spec.classes)
    block = PIXELS_AT_ONCE // spec.side**2
    for start in tqdm(range(0, count, block), f"computing {spec.name} {split}", unit=" blocks", leave=False, delay=2):
        numbers = range(start, min(start + block, count))
        pixels = Scene(spec, split, numbers, labels[start : numbers.stop]).pixels
        images[start : numbers.stop] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 3, 0)
    return images, labels


def _twice_as_fine(coarse: Field) -> Field:
    """Double both sides by linear interpolation (weights 3/4 and 1/4), wrapping around."""
    for axis in (1, 2):
        near, far = coarse * 0.75, coarse * 0.25
        pairs = np.stack((near + np.roll(far, 1, axis), near + np.roll(far, -1, axis)), axis + 1)
        coarse = pairs.reshape([size * (2 if k == axis else 1) for k, size in enumerate(near.shape)])
    return coarse


class Scene:
    """A block of images, (3, N, H, W), not yet rounded, and their random numbers, used in a fixed order."""

    def __init__(self, spec: Spec, split: str, numbers: range, labels: np.ndarray) -> None:
        self.side, octaves = spec.side, [2**k for k in range(1, spec.side.bit_length())]
        grids = {"luminance": octaves, "tint": octaves[:-2], "warmth": octaves[:-2], "grain": octaves[-1:]}
        num_bytes = 2 * NUM_DRAWS + sum(side * side for sides in grids.values() for side in sides)
        # Why: raw words are the only draws that numpy promises never to change (NEP 19).
        streams = (randomness.generator(spec.seed, f"formula/{spec.name}/{split}", i) for i in numbers)
        raw = [stream.bit_generator.random_raw(-(-num_bytes // 8)) for stream in streams]
        draws, self.next_words = np.split(np.stack(raw).astype("<u8").view(np.uint8), [2 * NUM_DRAWS], axis=1)
        self.draws = iter((draws.view("<u2").astype(np.float32) / 65536).T)
        noise = np.stack([self.octaves(grids[name]) for name in ("luminance", "tint", "warmth")])
        self.noise = np.tile(noise, (1, 1, 2, 2))
        places = (np.arange(spec.side, dtype=np.float32) - (spec.side - 1) / 2) / spec.side
        self.x, self.y = places[None, None, :], places[None, :, None]
        self.pixels = self.surface(roughness=(12, 26), tinge=(4, 14))
        # Far things first, each hiding what is behind it.
        for least, most in ((0.2, 0.7), (0.12, 0.5), (0.08, 0.3), (0.06, 0.2)):
            self.leaf(least, most)
        self.thing(spec, labels, radius=(0.1, 0.18), centre=0.4)
        self.leaf(0.05, 0.3)
        self.thing(spec, labels, spec.radius, spec.centre)
        self.leaf(0.04, 0.12)
        self.leaf(0.04, 0.12)
        # Light from one side and of a colour, and the grain of a film.
        slope = self.x * self.uniform(-0.7, 0.7) + self.y * self.uniform(-0.7, 0.7)
        shine = self.uniform(0.65, 1.1)
        self.pixels *= (1 + slope) * np.stack([shine + self.uniform(-0.12, 0.12) for _ in range(3)])
        self.pixels += self.octaves(grids["grain"]) * self.uniform(2, 8)

    def uniform(self, low: float, high: float) -> Field:
        """Return one number between `low` and `high` for each image, (N, 1, 1)."""
        return (next(self.draws) * (high - low) + low)[:, None, None]

    def octaves(self, grids: list[int]) -> Field:
        """Return noise (N, H, W) that wraps around: octaves of nearly equal strength, that is, an amplitude of 1/f."""
        total = None
        for grid in grids:
            words, self.next_words = np.split(self.next_words, [grid * grid], axis=1)
            octave = words.reshape(-1, grid, grid).astype(np.float32) / 128 - 1
            total = octave if total is None else _twice_as_fine(total) * OCTAVE_FALL + octave
        while total.shape[1] < self.side:
            total = _twice_as_fine(total)
        return total

    def surface(self, roughness: tuple[float, float], tinge: tuple[float, float], spread: float = 45) -> np.ndarray:
        """Draw a rough surface of one colour, (3, N, H, W): a piece of the noise from any place."""
        down, right = (self.uniform(0, self.side).astype(np.int64).ravel().tolist() for _ in range(2))
        pixels = np.empty_like(self.noise[:, :, : self.side, : self.side])
        for i, (y, x) in enumerate(zip(down, right, strict=True)):
            pixels[:, i] = self.noise[:, i, y : y + self.side, x : x + self.side]
        light, tint, warmth = pixels
        light *= self.uniform(*roughness)
        pixels[1:] *= self.uniform(*tinge)
        # Its colour is a brightness and a smaller difference for each of red, green and blue.
        brightness = self.uniform(60, 195)
        red, green, blue = (brightness + self.uniform(-spread, spread) for _ in range(3))
        return np.stack((light + warmth + red, light - tint * 0.5 + green, light + tint - warmth + blue))

    def local(self, centre: float, radius: Field, turn: float) -> tuple[Field, Field]:
        """Draw a place up to `centre` off the middle and a tilt; return the coordinates u, v there in units of `radius`."""
        x, y = (place - self.uniform(-centre, centre) for place in (self.x, self.y))
        step = np.floor(self.uniform(-turn * NUM_ANGLES, turn * NUM_ANGLES + 1)).astype(np.int64)
        cosine, sine = SINES[(step + NUM_ANGLES // 4) % NUM_ANGLES], SINES[step % NUM_ANGLES]
        return (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius

    def paint(self, surface: np.ndarray, distance: Field, radius: Field) -> None:
        """Put `surface` where `distance` (in units of `radius`) is positive, and its shadow on what is around."""
        pixels, reach = distance * (radius * self.side), self.side / 16
        self.pixels *= 1 - np.clip(pixels / reach + 1, 0, 1) * self.uniform(0.1, 0.5)
        self.pixels += (surface - self.pixels) * np.clip(pixels + 0.5, 0, 1)

    def leaf(self, least: float, most: float) -> None:
        """Paint an ellipse or a bar that belongs to no class; small ones are more frequent, as the square of 1/size."""
        radius = least / (1 - self.uniform(0, 1 - least / most))
        u, v = self.local(centre=0.55, radius=radius, turn=0.5)
        v = v * self.uniform(1.3, 3.0)
        distance = np.where(self.uniform(0, 1) < 0.6, SHAPES["disc"](u, v), SHAPES["square"](u, v))
        self.paint(self.surface(roughness=(4, 24), tinge=(2, 10)), distance, radius)

    def thing(self, spec: Spec, labels: np.ndarray, radius: tuple[float, float], centre: float) -> None:
        """Paint an object of each image's class with a radius between the two of `radius`, up to `centre` off the middle."""
        radius_N11 = self.uniform(*radius)
        u, v = self.local(centre, radius_N11, turn=0.045)
        distance, pattern = np.empty_like(u), np.empty_like(u)
        stripes, phase = self.uniform(*spec.stripes), self.uniform(0, 1)
        for k in set(labels.tolist()):
            these, draw_pattern = labels == k, PATTERNS[spec.patterns[k // len(SHAPES)]]
            distance[these] = list(SHAPES.values())[k % len(SHAPES)](u[these], v[these])
            pattern[these] = draw_pattern(*(w[these] * stripes[these] + phase[these] for w in (u, v)))
        surface = self.surface(roughness=(3, 12), tinge=(2, 8), spread=32)
        contrast = self.uniform(64, 70)
        hues = labels * NUM_ANGLES // len(spec.classes)
        for c in range(3):
            surface[c] += SINES[(hues + c * NUM_ANGLES // 3) % NUM_ANGLES][:, None, None] * TIE
            surface[c] += pattern * (contrast + self.uniform(-25, 25))
        self.paint(surface, distance, radius_N11)
