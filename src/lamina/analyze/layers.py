"""Which layers a run's decoder was given: the weight of every tap over the steps, and its norm share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lamina.analyze.style import colour
from lamina.errors import LaminaError
from lamina.runs import Run


@dataclass(frozen=True)
class Bias:
    """How far a run leans on shallow layers, as numbers."""

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

    @property
    def by_weight(self) -> Bias:
        """Of the last step's weights."""
        return bias(self.layers, self.weights[-1], self.depth)

    @property
    def by_share(self) -> Bias:
        """Of the last step's norm shares."""
        return bias(self.layers, self.shares[-1], self.depth)


@dataclass(frozen=True)
class LayersResult:
    """Several runs side by side."""

    runs: Mapping[str, LayerWeights]

    def to_json(self) -> dict[str, Any]:
        """Everything, with the bias of each run."""
        told = {
            name: {
                **asdict(run),
                "bias_by_weight": asdict(run.by_weight),
                "bias_by_share": asdict(run.by_share),
            }
            for name, run in self.runs.items()
        }
        return {"runs": told}

    def plot(self) -> Figure:
        """A row for each run: weights over the steps as a heat map, and where weights and shares ended."""
        rows = len(self.runs)
        figure = Figure(figsize=(9.6, 0.6 + 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False, width_ratios=(3, 2))
        for i, (name, run) in enumerate(self.runs.items()):
            heat, bars = axes[i]
            image = heat.pcolormesh(
                np.asarray(run.steps),
                np.arange(len(run.layers)),
                np.asarray(run.weights).T,
                shading="nearest",
            )
            heat.set_yticks(range(len(run.layers)), [f"block {layer}" for layer in run.layers])
            heat.set_xlabel("step")
            heat.set_title(f"{name}: weight of each block")
            figure.colorbar(image, ax=heat)
            place = np.arange(len(run.layers))
            bars.barh(place - 0.2, run.weights[-1], 0.4, color=colour(0), label="weight")
            bars.barh(place + 0.2, run.shares[-1], 0.4, color=colour(1), label="norm share")
            bars.set_yticks([])
            bars.set_xlabel(
                f"at step {run.steps[-1]}; first half: {run.by_weight.first_half:.2f} of the weight"
            )
            bars.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
        return figure


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
    )
