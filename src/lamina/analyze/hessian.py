"""How sharp a loss is: the Hessian's largest and most negative eigenvalues, mini-batch by mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from lamina.analyze.curvature import (
    Eigenvalue,
    HessianOperator,
    Parameters,
    Trace,
    extremes,
    hutchinson,
    power_iteration,
)
from lamina.analyze.style import colour
from lamina.batch import Batch
from lamina.errors import LaminaError

Progress = Callable[[str, int, int, float], None]
"""Told the model, the mini-batch (from 0), its products so far and what is left of the residual."""


@dataclass(frozen=True)
class BatchCurvature:
    """What was found on one mini-batch."""

    loss: float
    top: tuple[Eigenvalue, ...]
    """Largest, descending."""
    bottom: tuple[Eigenvalue, ...]
    """Most negative, ascending."""
    magnitude: Eigenvalue
    """Of largest magnitude, by power iteration as PyHessian does it; its sign is kept."""
    trace: Trace | None
    products: int


@dataclass(frozen=True)
class HessianResult:
    """Curvature of several models on the same mini-batches."""

    models: Mapping[str, tuple[BatchCurvature, ...]]
    parameters: Parameters
    weight_decay: float
    n_parameters: Mapping[str, int]

    def maxima(self, name: str) -> tuple[float, ...]:
        """The largest eigenvalue of each mini-batch."""
        return tuple(batch.top[0].value for batch in self.models[name])

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain lists and numbers."""
        return asdict(self)

    def plot(self) -> Figure:
        """The largest eigenvalue of each mini-batch, a row of points for each model, with the medians."""
        figure = Figure(figsize=(6.4, 1.2 + 0.6 * len(self.models)), layout="constrained")
        axes = figure.add_subplot()
        for row, name in enumerate(self.models):
            values = sorted(self.maxima(name))
            axes.scatter(values, [row] * len(values), color=colour(row), alpha=0.7, label=name)
            axes.scatter(float(np.median(values)), row, marker="|", s=400, color=colour(row))
        axes.set_yticks(range(len(self.models)), list(self.models))
        axes.set_ylim(len(self.models) - 0.5, -0.5)
        n = len(next(iter(self.models.values())))
        axes.set_xlabel(
            f"largest eigenvalue of the Hessian, {self.parameters} parameters\n"
            f"{n} mini-batches, a point for each; line: median"
        )
        return figure


def analyze_hessian(
    tasks: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    top: int = 5,
    bottom: int = 1,
    parameters: Parameters = "encoder",
    weight_decay: float = 0.0,
    trace_probes: int = 0,
    tol: float = 1e-3,
    seed: int = 0,
    progress: Progress = lambda name, batch, products, residual: None,
) -> HessianResult:
    """Largest and most negative eigenvalues (Lanczos), the one of largest magnitude (power iteration) and, on
    request, the trace, of each task's loss on each mini-batch.

    Args:
        tasks: methods or classifiers by name; their losses are taken in evaluation mode, with masks fixed by
            the batches' keys.
        batches: the same for all tasks.
        top, bottom: how many eigenvalues of each end.
        parameters: "encoder", so that methods with other decoders and fusions compare, or "all".
        weight_decay: of an L2 term that is added to the loss (NLL + L2 for classifiers).
        trace_probes: random vectors for the trace; 0 leaves it out.
        tol: residual over the largest magnitude at which Lanczos stops.
        progress: called after each product; the residual is relative to the largest magnitude.
        seed: of keys where batches have none, and of starting vectors.

    Raises:
        LaminaError: where there is no batch or task, and as `HessianOperator` does.
    """
    kept = list(batches)
    if not kept or not tasks:
        raise LaminaError("curvature needs a model and a batch of images; give one of each at least")
    found: dict[str, tuple[BatchCurvature, ...]] = {}
    sizes: dict[str, int] = {}
    for name, task in tasks.items():
        rows = []
        for i, batch in enumerate(kept):
            operator = HessianOperator(task, batch, parameters, weight_decay, seed=seed)
            sizes[name] = operator.n
            tick = partial(_tick, progress, name, i, operator)
            rows.append(_one(operator, top, bottom, trace_probes, tol, (seed, i), tick))
        found[name] = tuple(rows)
    return HessianResult(found, parameters, weight_decay, sizes)


def _one(
    operator: HessianOperator,
    top: int,
    bottom: int,
    probes: int,
    tol: float,
    words: tuple[int, int],
    tick: Callable[[float], None],
) -> BatchCurvature:
    start = operator.normal(*words, 0)
    above, below = extremes(
        operator, start, lambda i: operator.normal(*words, 1, i), top, bottom, tol, tick=tick
    )
    (magnitude,) = power_iteration(operator, lambda i: operator.normal(*words, 2, i), tick=tick)
    trace = hutchinson(operator, lambda i: operator.signs(*words, 3, i), probes, tick) if probes else None
    return BatchCurvature(operator.loss, above, below, magnitude, trace, operator.products)


def _tick(progress: Progress, name: str, batch: int, operator: HessianOperator, residual: float) -> None:
    progress(name, batch, operator.products, residual)
