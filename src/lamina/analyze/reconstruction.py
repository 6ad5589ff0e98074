"""The error of reconstructions at hidden patches by spatial frequency, relative to the original."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from lamina.analyze.measures.cosine_transform import energies, energy_curve, frequencies
from lamina.analyze.options import AnalysisOptions
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.analyze.shown_images import keys_of
from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of
from lamina.core.patches import patchify, split_indices, take
from lamina.methods.reconstruct import check_pixels, fill
from lamina.mim import MIM
from lamina.runs.model_spec import locate_step
from lamina.runs.run import load_method
from lamina.targets.pixels import Pixels
from lamina.train.distributed import choose_device

ROUNDING = 1e-10
"""Energy per coefficient below which there is none: less than a level of 16-bit images, more than what
rounding in float32 leaves."""


@dataclass(frozen=True)
class Filler:
    """A method, and the images whose hidden patches it fills in."""

    method: MIM
    batches: Iterable[Batch]


@dataclass(frozen=True)
class Band:
    """One frequency band; energies are means per coefficient, of pixels on [0, 1]."""

    original: float
    error: float
    ratio: float | None
    """Error over original: 0 where all is predicted, 1 where nothing is. None where the original has none."""
    standard_error: float | None
    """Standard error of the ratio over images; None for a single image."""


@dataclass(frozen=True)
class ModelReconstruction:
    """One method. The original is what is hidden minus what takes no model: the mean of the patch where that
    is given, else the mean colour of the image's visible patches. Beyond frequency 0 it is all there is."""

    n_images: int
    grid: tuple[int, int]
    patch: tuple[int, int]
    """Height and width in px."""
    n_hidden: int
    """Number of hidden patches of each image."""
    norm_pix: bool
    """Whether each patch's mean and deviation, over pixels and channels together, are given to it."""
    low_pass: float | None
    """The target's cutoff as a fraction of Nyquist; the error is against the images as they are."""
    frequencies: tuple[float, ...]
    """|omega| in rad per px, in units of pi."""
    counts: tuple[int, ...]
    """Coefficients behind each frequency, out of those of a patch."""
    original: tuple[float, ...]
    error: tuple[float, ...]
    """Mean energies per coefficient; weighted by counts, their means are `baseline_mse` and `mse`."""
    ratio: tuple[float | None, ...]
    mean: Band
    """The means of a patch, channel by channel; of their differences alone where their mean is given."""
    low: Band | None
    """0 < |omega| < pi/2; None where the patch is too small to have any."""
    high: Band
    """|omega| >= pi/2."""
    mse: float
    """Mean squared error of the hidden pixels on [0, 1], not clamped."""
    baseline_mse: float
    """PSNR of the baseline."""

    @property
    def mask_ratio(self) -> float:
        """The share of the patches that was hidden."""
        return self.n_hidden / (self.grid[0] * self.grid[1])

    @property
    def psnr(self) -> float:
        """In dB, of the mean squared error over all images; infinite without error."""
        return decibels(self.mse)

    @property
    def baseline_psnr(self) -> float:
        """PSNR of the baseline."""
        return decibels(self.baseline_mse)


@dataclass(frozen=True)
class ReconstructionResult(Result):
    """Several methods, each on its images; masks are fixed by the images' keys."""

    models: Mapping[str, ModelReconstruction]

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain lists and numbers."""
        found = super().to_json()
        for name, model in self.models.items():
            numbers = (model.mask_ratio, model.psnr, model.baseline_psnr)
            found["models"][name] |= zip(("mask_ratio", "psnr", "baseline_psnr"), numbers, strict=True)
        return found


def decibels(mse: float) -> float:
    """PSNR of pixels on [0, 1]."""
    return -10 * math.log10(mse) if mse else math.inf


def run(session: AnalysisSession, options: AnalysisOptions) -> ReconstructionResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    device = choose_device(options.device)
    methods = {name: load_method(*locate_step(spec))[0] for name, spec in session.models.items()}
    for name, method in methods.items():
        check_pixels(method, name)
    models = session.open_models()
    return analyze_reconstruction(
        {name: Filler(method.to(device), models[name].batches) for name, method in methods.items()}
    )


def analyze_reconstruction(fillers: Mapping[str, Filler]) -> ReconstructionResult:
    """The energy of the error at hidden patches by spatial frequency, over that of the original.

    Every hidden patch is transformed by itself (DCT-II, each channel), so that neither the mask's shape nor
    visible patches are in the spectrum; there is nothing below pi over the patch's side but its mean. Methods
    are in evaluation mode; where a batch has no masks, they are drawn by its keys, so that several methods
    with the same masking and grid hide the same. Predictions of normalised patches are given the true patch's
    mean and deviation (`Pixels.to_pixels`).

    Args:
        fillers: methods by name, and their images.

    Raises:
        LaminaError: without a method or images, for targets that are not made of pixels, for patches of a
            single pixel, or where hidden patches are not predicted.
    """
    if not fillers:
        raise LaminaError("reconstructions need at least one run")
    for name, filler in fillers.items():
        check_pixels(filler.method, name)
    return ReconstructionResult({name: _model(name, filler) for name, filler in fillers.items()})


class _Energies(NamedTuple):
    """Of each image: mean energies per coefficient at its hidden patches."""

    original: Float64[Tensor, "B h w"]
    error: Float64[Tensor, "B h w"]
    n_hidden: int


def _model(name: str, filler: Filler) -> ModelReconstruction:
    method, target, patch = filler.method, filler.method.target, filler.method.encoder.patch
    if patch == (1, 1):
        raise LaminaError(f"the patches of {name} are single pixels, which have no frequencies")
    parts: list[_Energies] = []
    grid, n = (0, 0), 0
    for batch in filler.batches:
        grid = method.encoder.grid_of(batch.images)
        parts.append(_energies(name, method, replace(batch, keys=keys_of(batch, n))))
        n += len(batch)
    if not n:
        raise LaminaError(f"{name} has no images; give one or more")
    original, error = (torch.cat(each) for each in zip(*((p.original, p.error) for p in parts), strict=True))
    at = frequencies(*patch)
    low = (at > 0) & (at < 0.5)
    whole, left = energy_curve(original.mean(0)), energy_curve(error.mean(0))
    return ModelReconstruction(
        n_images=n,
        grid=grid,
        patch=patch,
        n_hidden=parts[0].n_hidden,
        norm_pix=isinstance(target, Pixels) and target.norm_pix,
        low_pass=target.low_pass if isinstance(target, Pixels) else None,
        frequencies=whole.frequencies,
        counts=whole.counts,
        original=whole.values,
        error=left.values,
        ratio=tuple(_ratio(e, o) for e, o in zip(left.values, whole.values, strict=True)),
        mean=_band(original, error, at == 0),
        low=_band(original, error, low) if low.any() else None,
        high=_band(original, error, at >= 0.5),
        mse=float(error.mean()),
        baseline_mse=float(original.mean()),
    )


def _energies(name: str, method: MIM, batch: Batch) -> _Energies:
    batch = batch.to(device_of(method))
    made = fill(method, batch)
    patch, target = method.encoder.patch, method.target
    mask, where = made.mask.cpu(), made.where.cpu()
    if bool((mask & ~torch.zeros_like(mask).scatter(1, where, True)).any()):
        raise LaminaError(
            f"{name} leaves out hidden patches; its decoder must predict all in evaluation mode"
        )
    truth = patchify(unit_float(batch.images).cpu().double(), patch)  # (B, N, K)
    n_hidden = int(mask[0].sum())
    visible, hidden = split_indices(mask, mask.shape[1] - n_hidden)

    def of_error(pixels: Float[Tensor, "B m K"]) -> Float64[Tensor, "B h w"]:
        placed = truth.scatter(1, where[..., None].expand_as(pixels), pixels.cpu().double())
        return energies(take(placed - truth, hidden), patch)

    if isinstance(target, Pixels) and target.norm_pix:
        free = target.to_pixels(torch.zeros_like(made.pixels), made.where, batch.images)
    else:
        colour = take(truth, visible).reshape(len(batch), -1, batch.images.shape[1]).mean(1)
        free = colour.repeat(1, patch[0] * patch[1])[:, None].expand_as(made.pixels)
    return _Energies(of_error(free), of_error(made.pixels), n_hidden)


def _ratio(error: float, original: float) -> float | None:
    return error / original if original > ROUNDING else None


def _band(
    original: Float64[Tensor, "n h w"], error: Float64[Tensor, "n h w"], chosen: Bool[Tensor, "h w"]
) -> Band:
    """Means over the chosen coefficients and over images; the ratio is that of the means."""
    of_original, of_error = (each[:, chosen].mean(1) for each in (original, error))
    n, whole, left = len(original), float(of_original.mean()), float(of_error.mean())
    ratio = _ratio(left, whole)
    if ratio is None or n < 2:
        return Band(whole, left, ratio, None)
    around = (of_error - ratio * of_original).square().sum()  # a ratio of means, to first order
    return Band(whole, left, ratio, math.sqrt(float(around) / (n * (n - 1))) / whole)
