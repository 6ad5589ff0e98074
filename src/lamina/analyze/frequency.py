"""Spatial frequencies of the tokens, sub-block by sub-block: Park and Kim, ICLR 2022, arXiv 2202.06709."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.analyze.catalog import FrequencyOptions
from lamina.analyze.measures.fourier import Bands, amplitudes, bands_of, curve, log_amplitudes
from lamina.analyze.models import ModelOnImages
from lamina.analyze.options import Direction, Mode
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.encoder.residual_decay import PreNorm

Part = Literal["input", "attention", "mlp", "block"]


@dataclass(frozen=True)
class Stage:
    """The un-normed stream after one part of block `layer` with its shortcut; -1: the embedded input."""

    layer: int
    part: Part
    relative: tuple[float, ...]
    """Mean log amplitude (natural) at each frequency, minus that at DC."""

    @property
    def high(self) -> float:
        """Relative log amplitude at the highest frequency."""
        return self.relative[-1]


@dataclass(frozen=True)
class ModelFrequency:
    """One model; `bands` by what the maps are: "unnormed", "last" (after the final norm), "fused"."""

    depth: int
    n_images: int
    grid: tuple[int, int]
    frequencies: tuple[float, ...]
    """In units of pi."""
    counts: tuple[int, ...]
    """Coefficients behind each frequency."""
    stages: tuple[Stage, ...]
    bands: Mapping[str, Bands]


@dataclass(frozen=True)
class FrequencyResult(Result):
    """Several models, each on its images."""

    models: Mapping[str, ModelFrequency]
    mode: Mode
    direction: Direction

    def to_json(self) -> dict[str, Any]:
        """Everything, and each stage's number at the highest frequency."""
        found = super().to_json()
        for name, model in self.models.items():
            for entry, stage in zip(found["models"][name]["stages"], model.stages, strict=True):
                entry["high"] = stage.high
        return found


def run(session: AnalysisSession, options: FrequencyOptions) -> FrequencyResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    direction = "diagonal" if options.mode == "park-kim" else options.direction
    models = session.open_models()
    return analyze_frequency(models, mode=options.mode, direction=direction, sub_blocks=options.sub_blocks)


@torch.inference_mode()
def analyze_frequency(
    models: Mapping[str, ModelOnImages],
    *,
    mode: Mode = "exact",
    direction: Direction = "radial",
    sub_blocks: bool = True,
) -> FrequencyResult:
    """Log amplitudes of the patch tokens' maps by spatial frequency (Park and Kim, arXiv 2202.06709).

    They are natural logs of |fft2| + 1e-6, averaged over images and channels after the log.

    Args:
        models: models by name, and their images.
        mode: "park-kim" is the published arithmetic: square grids with an even side, their diagonal, labelled
            0 to pi although its last point lies before Nyquist (at 6/7 pi on 14 x 14). "exact" labels true
            angular frequencies, Nyquist included, on any grid.
        direction: "diagonal" takes coefficients of the same frequency along both axes, as far as the grid
            has any; "radial" the mean over rings of |omega|, 2 pi over the shorter side apart.
        sub_blocks: after attention too, not after whole blocks alone.

    Raises:
        LaminaError: without models or images, for grids without such a curve, or blocks without a state
            between attention and MLP.
    """
    if not models:
        raise LaminaError("frequencies need at least one model")
    if mode not in get_args(Mode) or direction not in get_args(Direction):
        raise LaminaError(
            f"mode {mode!r} and direction {direction!r}: take exact or park-kim, and radial or diagonal"
        )
    found = {name: _model(name, each, mode, direction, sub_blocks) for name, each in models.items()}
    return FrequencyResult(found, mode, direction)


def _model(name: str, model: ModelOnImages, mode: Mode, direction: Direction, sub: bool) -> ModelFrequency:
    backbone, encoder = model.backbone, model.backbone.encoder
    logs: dict[tuple[int, Part], Tensor] = {}
    plain: dict[str, Tensor] = {}
    n, grid = 0, encoder.grid
    for batch in model.batches:
        grid = encoder.grid_of(batch.images)
        with _between(encoder, sub) as middle:
            outputs = encoder(batch.images, range(-1, encoder.depth))
        stages: dict[tuple[int, Part], Tensor] = {(-1, "input"): outputs[0]}
        for i, output in enumerate(outputs[1:]):
            if sub:
                stages[i, "attention"] = middle[i]
            stages[i, "mlp" if sub else "block"] = output
        for key, tokens in stages.items():
            found = log_amplitudes(_maps(tokens[:, encoder.n_prefix :], grid))
            logs[key] = logs[key] + found if key in logs else found
        finals = {"unnormed": outputs[-1][:, encoder.n_prefix :]}
        finals |= {str(kind): each.patches for kind, each in backbone.every(batch.images).items()}
        for what, tokens in finals.items():
            found = amplitudes(_maps(tokens, grid))
            plain[what] = plain[what] + found if what in plain else found
        n += len(batch.images)
    if not n:
        raise LaminaError(f"{name} has no images; give one or more")
    total = n * encoder.width
    curves = {key: curve(each / total, mode, direction) for key, each in logs.items()}
    first = curves[-1, "input"]
    relative = [
        Stage(layer, part, tuple(v - each.values[0] for v in each.values))
        for (layer, part), each in curves.items()
    ]
    bands = {what: bands_of(each / total) for what, each in plain.items()}
    return ModelFrequency(encoder.depth, n, grid, first.frequencies, first.counts, tuple(relative), bands)


@contextmanager
def _between(encoder: Encoder, wanted: bool) -> Iterator[dict[int, Tensor]]:
    """What the blocks' second norms are given while this is open: the stream after attention's shortcut."""
    found: dict[int, Tensor] = {}
    handles = []
    blocks = list(encoder.vit.blocks) if wanted else []
    for block in blocks:
        if not isinstance(block, PreNorm) or not hasattr(block, "norm2"):
            raise LaminaError(
                f"{type(block).__name__} has no state between attention and MLP that a second norm is given; "
                "leave them out (--no-sub-blocks)"
            )

    def keep(i: int) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[i] = given[0]

        return hook

    try:
        for i, block in enumerate(blocks):
            assert isinstance(block.norm2, nn.Module)
            handles.append(block.norm2.register_forward_pre_hook(keep(i)))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _maps(tokens: Float[Tensor, "B N D"], grid: tuple[int, int]) -> Float[Tensor, "B D h w"]:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
