"""The fusion weight and norm share of every tap of a run, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamina.analyze.options import OutputOptions
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError
from lamina.fusion.options import Pooling
from lamina.runs.model_spec import parse_model
from lamina.runs.run import Run


@dataclass(frozen=True)
class Bias:
    """How much of the fusion is on shallow layers."""

    first_half: float
    """Mass on taps in the first half of the blocks."""
    centre: float
    """Centre of mass in depth: 0 all on the first block, 1 all on the last."""


@dataclass(frozen=True)
class LayerWeights:
    """One run's taps over its steps; each row of `weights` and `shares` sums to one."""

    layers: tuple[int, ...]
    depth: int
    steps: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    """Softmax weight of each tap (with attention pooling: mean over heads, tokens, batch), a row per step."""
    shares: tuple[tuple[float, ...], ...]
    """Norm share of each tap, a row per step."""
    lr_sums: tuple[float, ...]
    """Sum of the learning rates up to each step: AdamW moves a logit by about that much at most."""
    logit_lr_scale: float
    pooling: Pooling

    @property
    def logit_reach(self) -> tuple[float, ...] | None:
        """About how far AdamW can have moved a logit by each step; attention pooling has none."""
        if self.pooling == "attention":
            return None
        return tuple(self.logit_lr_scale * each for each in self.lr_sums)

    @property
    def by_weight(self) -> Bias:
        """Of the last step's weights."""
        return bias(self.layers, self.weights[-1], self.depth)

    @property
    def by_share(self) -> Bias:
        """Of the last step's norm shares."""
        return bias(self.layers, self.shares[-1], self.depth)


@dataclass(frozen=True)
class LayersResult(Result):
    """Several runs side by side."""

    runs: Mapping[str, LayerWeights]

    def to_json(self) -> dict[str, Any]:
        """Everything, with the reach and the bias of each run."""
        found = super().to_json()
        for name, run in self.runs.items():
            bias = {"bias_by_weight": asdict(run.by_weight), "bias_by_share": asdict(run.by_share)}
            found["runs"][name] |= {"logit_reach": run.logit_reach, **bias}
        return found


def bias(layers: Sequence[int], mass: Sequence[float], depth: int) -> Bias:
    """Where in a network of `depth` blocks the mass lies that is on the listed ones; it sums to one.

    A block in the middle of an odd number belongs to neither half and counts half.
    """
    middle, total = (depth - 1) / 2, sum(mass)
    if total <= 0:
        raise LaminaError("weights of layers must add up to more than zero")
    first = sum(m for i, m in zip(layers, mass, strict=True) if i < middle)
    first += sum(m for i, m in zip(layers, mass, strict=True) if i == middle) / 2
    centre = sum(m * i for i, m in zip(layers, mass, strict=True)) / max(depth - 1, 1)
    return Bias(first / total, centre / total)


def run(session: AnalysisSession, options: OutputOptions) -> LayersResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    for spec in session.models.values():
        named = parse_model(spec)
        if named.run is not None and named.step is not None:
            raise LaminaError(
                f"{spec} is a step, and weights are logged over all steps; give {named.run.path}"
            )
    return analyze_layers(session.models)


def analyze_layers(runs: Mapping[str, str | Path]) -> LayersResult:
    """Read the weights that runs with MFF logged.

    Raises:
        LaminaError: for a folder that is no run, or one that logged no weights.
    """
    if not runs:
        raise LaminaError("name at least one run")
    return LayersResult({name: _read(Run(place)) for name, place in runs.items()})


def _read(run: Run) -> LayerWeights:
    recipe = run.recipe()
    rows = [row for row in run.metrics() if isinstance(row.get("fusion_weights"), list)]
    if not rows:
        raise LaminaError(
            f"{run.path} logged no weights of layers; analyze a run with --fusion mff that reached its first "
            "log row"
        )
    layers = recipe.fusion.layers
    assert not isinstance(layers, str)
    depth = layers[-1] + 1
    return LayerWeights(
        tuple(layers),
        depth,
        tuple(int(row["step"]) for row in rows),
        tuple(tuple(row["fusion_weights"]) for row in rows),
        tuple(tuple(row["fusion_shares"]) for row in rows),
        tuple(float(row["lr_sum"]) for row in rows),
        recipe.fusion.logit_lr_scale,
        recipe.fusion.pooling,
    )
