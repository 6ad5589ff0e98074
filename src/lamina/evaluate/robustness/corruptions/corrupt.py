"""The fifteen corruptions by their published names, and what applies one of them while images are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.random import RandomState
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, seed_for
from lamina.evaluate.robustness.corruptions import blur, digital, noise, weather
from lamina.evaluate.robustness.corruptions.kinds import KINDS, check_corruption
from lamina.evaluate.robustness.corruptions.types import Pixels, Values

_Function = Callable[[Pixels, int, RandomState], Pixels | Values]
_FUNCTIONS: dict[str, _Function] = dict(
    zip(
        KINDS,
        (
            noise.gaussian,
            noise.shot,
            noise.impulse,
            blur.defocus,
            blur.glass,
            blur.motion,
            blur.zoom,
            weather.snow,
            weather.frost,
            weather.fog,
            weather.brightness,
            digital.contrast,
            digital.elastic,
            digital.pixelate,
            digital.jpeg,
        ),
        strict=True,
    )
)


def corrupt(image: Shaped[Tensor, "C H W"], kind: str, severity: int, key: int) -> UInt8[Tensor, "C H W"]:
    """A corrupted copy of an 8-bit image (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261).

    The random numbers are a function of (key, kind, severity). What is computed is what the package
    imagecorruptions-imaug 1.1.5 computes: equal where nothing is random, and equal for equal numbers, but for
    the rounding of another library (docs/guides/robustness.md: how that differs from the published images).
    The parameters are those for 224 px, most of them in px, whatever the size of the image.

    Args:
        image: uint8, on the CPU. Grey is taken for three equal channels, of which the first is given back.
        kind: one of `KINDS`.
        severity: 1 to 5.
        key: names the image (`lamina.core.rng.sample_keys`).

    Raises:
        LaminaError: for another kind, severity, type or number of channels, and for frost without its
            photographs.
    """
    check_corruption(kind, severity)
    if image.dtype != torch.uint8 or len(image) not in (1, 3):
        found = f"{len(image)} channels of {str(image.dtype).removeprefix('torch.')}"
        raise LaminaError(f"corruptions take 8-bit images of 1 or 3 channels, not {found}")
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    values = _FUNCTIONS[kind](pixels, severity, _numbers(key, kind, severity))
    cut = np.clip(values, 0, 255).astype(np.uint8)  # downwards, as the published images were
    return torch.from_numpy(cut).permute(2, 0, 1)[: len(image)].contiguous()


def _numbers(key: int, kind: str, severity: int) -> RandomState:
    """numpy's old generator: its streams, unlike those of the new one, are promised never to change."""
    seed = seed_for(key, Purpose.CORRUPTION, KINDS.index(kind), severity)
    return RandomState([seed & 0xFFFFFFFF, seed >> 32])


@dataclass(frozen=True)
class Corruption:
    """A corruption as `eval_batches` applies it to each image after the evaluation's crop.

    Raises:
        LaminaError: as `check_corruption`, at once; when called, as `corrupt`.
    """

    kind: str
    """One of `KINDS`."""
    severity: int
    """1 to 5."""
    seed: int = 0
    """Random numbers are a function of it, of the image's index, the kind and the severity."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        check_corruption(self.kind, self.severity)

    def __call__(self, image: Shaped[Tensor, "C H W"], index: int) -> UInt8[Tensor, "C H W"]:
        """The image corrupted; what is deeper than 8 bits is rounded to them first."""
        if image.dtype != torch.uint8:
            image = (unit_float(image) * 255).round().to(torch.uint8)
        key = int(sample_keys(self.seed, 0, torch.tensor([index])))
        return corrupt(image, self.kind, self.severity, key)
