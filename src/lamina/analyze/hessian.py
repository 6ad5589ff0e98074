"""How sharp a loss is: the Hessian's largest and most negative eigenvalues, mini-batch by mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from lamina.analyze.curvature.density import Density, Trace, hutchinson, pooled, spectral_density
from lamina.analyze.curvature.lanczos import Eigenvalue, extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.analyze.curvature.power import power_iteration
from lamina.analyze.hessian_plot import draw
from lamina.analyze.options import Parameters
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError

Progress = Callable[[str, int, int, float], None]
"""Told the model, the mini-batch (from 0), its products so far and what is left of the residual."""

DENSITY_STEPS = 40
"""Products for each random vector of a density: as many as Lanczos keeps vectors."""


@dataclass(frozen=True)
class BatchCurvature:
    """What was found on one mini-batch."""

    images: int
    loss: float
    """Without the L2 term."""
    top: tuple[Eigenvalue, ...]
    """Largest, descending."""
    bottom: tuple[Eigenvalue, ...]
    """Most negative, ascending."""
    magnitude: tuple[Eigenvalue, ...]
    """Of largest magnitude, by power iteration with deflation as PyHessian does it, in the order found; signs
    are kept."""
    trace: Trace | None
    density: Density | None
    products: int


@runtime_checkable
class KeptBatches(Protocol):
    """Where mini-batches are kept as soon as they are done (`partial_hessian`)."""

    def get(self, name: str, number: int, /) -> BatchCurvature | None:
        """A mini-batch of a model; None where it is still to be done."""

    def add(self, name: str, number: int, found: BatchCurvature, /) -> None:
        """Keep a mini-batch."""


@dataclass(frozen=True)
class HessianResult:
    """Curvature of several models on the same mini-batches."""

    models: Mapping[str, tuple[BatchCurvature, ...]]
    parameters: Parameters
    weight_decay: float
    mixed: bool
    n_parameters: Mapping[str, int]

    def maxima(self, name: str) -> tuple[float, ...]:
        """The largest eigenvalue of each mini-batch."""
        return tuple(batch.top[0].value for batch in self.models[name])

    def density(self, name: str) -> Density | None:
        """The density over all mini-batches, where it was asked for."""
        found = [batch.density for batch in self.models[name] if batch.density is not None]
        return pooled(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain lists and numbers."""
        return asdict(self)

    def plot(self) -> Figure:
        """Both ends over all mini-batches, and the density."""
        return draw(self)


def analyze_hessian(
    tasks: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    top: int = 5,
    bottom: int = 1,
    parameters: Parameters = "encoder",
    weight_decay: float = 0.0,
    mixed: bool = False,
    power: int = 0,
    trace_probes: int = 0,
    density_probes: int = 0,
    tol: float = 1e-3,
    seed: int = 0,
    progress: Progress = lambda name, batch, products, residual: None,
    kept: KeptBatches | None = None,
) -> HessianResult:
    """Largest and most negative eigenvalues (Lanczos) of each task's loss on each mini-batch and, on request,
    those of largest magnitude (power iteration), the trace (Hutchinson) and the density (quadrature).

    Of a masked image model it is the method's own loss under masks fixed by the batches' keys; of a
    classifier the negative log-likelihood, with `weight_decay` plus L2: the recipe of Park and Kim (ICLR
    2022, arXiv 2202.06709), who take batches of augmented training images.

    Args:
        tasks: methods or classifiers by name; drop path and dropout are off.
        batches: the same for all tasks.
        top, bottom: how many eigenvalues of each end; at least one of the largest.
        parameters: "encoder", so that methods with other decoders and fusions compare, or "all".
        weight_decay: of an L2 term that is added to the loss (`HessianOperator`).
        mixed: classifiers mix images and smooth labels as in training.
        power: how many values by power iteration too, up to 100 products each; Park and Kim take 5.
        trace_probes: random vectors for the trace, a product each; 0 leaves it out.
        density_probes: random vectors for the density, `DENSITY_STEPS` products each; 0 leaves it out.
        tol: residual of each value over its own magnitude at which Lanczos stops.
        seed: of keys where batches have none, and of starting vectors.
        progress: called after each product; the residual is relative to its own value, NaN where there is
            none.
        kept: mini-batches of an interrupted call, which are not computed again, and where new ones are kept.

    Raises:
        LaminaError: where there is no batch or task, and as `HessianOperator` does.
    """
    looked_at = list(batches)
    if not looked_at or not tasks:
        raise LaminaError("curvature needs a model and a batch of images; give one of each at least")
    if top < 1 or min(bottom, power, trace_probes, density_probes) < 0:
        raise LaminaError("curvature takes top of 1 or more, and bottom, power and probes of 0 or more")
    wanted = _Wanted(top, bottom, power, trace_probes, density_probes, tol, seed)
    found: dict[str, list[BatchCurvature]] = {name: [] for name in tasks}
    sizes: dict[str, int] = {}
    for i, batch in enumerate(looked_at):  # models in turn, so that one that cannot be derived says so early
        for name, task in tasks.items():
            earlier = None if kept is None else kept.get(name, i)
            if earlier is not None and name in sizes:
                found[name].append(earlier)
                continue
            operator = HessianOperator(task, batch, parameters, weight_decay, mixed, seed)
            sizes[name] = operator.n
            one = earlier or _one(operator, len(batch), i, wanted, partial(progress, name, i))
            del operator  # before the next one: its graph is most of the memory
            found[name].append(one)
            if kept is not None and earlier is None:
                kept.add(name, i, one)
    models = {name: tuple(rows) for name, rows in found.items()}
    return HessianResult(models, parameters, weight_decay, mixed, sizes)


class _Wanted(NamedTuple):
    """What is computed of each mini-batch."""

    top: int
    bottom: int
    power: int
    trace_probes: int
    density_probes: int
    tol: float
    seed: int


def _one(
    operator: HessianOperator, images: int, number: int, wanted: _Wanted, told: Callable[[int, float], None]
) -> BatchCurvature:
    def normal(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.normal(wanted.seed, number, purpose, i)

    def signs(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.signs(wanted.seed, number, purpose, i)

    def tick(residual: float) -> None:
        told(operator.products, residual)

    start = operator.normal(wanted.seed, number, 0)
    ends = extremes(operator, start, normal(1), wanted.top, wanted.bottom, wanted.tol, tick=tick)
    magnitude = power_iteration(operator, normal(2), wanted.power, tick=tick)
    trace, density = None, None
    if wanted.trace_probes:
        trace = hutchinson(operator, signs(3), wanted.trace_probes, tick)
    if wanted.density_probes:
        probes, steps = wanted.density_probes, DENSITY_STEPS
        density = spectral_density(operator, signs(4), normal(5), probes, steps, tick)
    return BatchCurvature(images, operator.loss, *ends, magnitude, trace, density, operator.products)
