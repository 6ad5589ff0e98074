"""The largest and most negative eigenvalues of a loss's Hessian, mini-batch by mini-batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lamina.analyze.catalog import HessianOptions
from lamina.analyze.curvature.density import Density, pooled
from lamina.analyze.curvature.mini_batch import BatchCurvature, Wanted, measure_batch
from lamina.analyze.curvature.operator import HessianOperator
from lamina.analyze.options import Parameters
from lamina.analyze.partial_hessian import PartialHessian
from lamina.analyze.session import AnalysisSession
from lamina.analyze.training_loss import mini_batches, open_loss
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.supervised.classifier import Supervised
from lamina.train.distributed import choose_device

ProductDone = Callable[[str, int, int, float], None]
"""Is called with the model, the mini-batch (from 0), its products so far and the relative residual."""


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
        """The density over all mini-batches; None where it was not computed."""
        found = [batch.density for batch in self.models[name] if batch.density is not None]
        return pooled(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain lists and numbers."""
        return asdict(self)


def run(session: AnalysisSession, options: HessianOptions) -> HessianResult:
    """The analysis as `lamina.analyze.catalog` lists it; what an interruption leaves is kept on disk."""
    losses = {name: open_loss(spec) for name, spec in session.models.items()}
    if options.mixed and not all(isinstance(loss.task, Supervised) for loss in losses.values()):
        raise LaminaError("only classifiers mix images; leave --mixed out")
    n, size, seed = options.batches, options.batch_size, options.seed
    batches = mini_batches(losses, session.data, options.crops, n, size, seed)
    tasks = {name: loss.task.to(choose_device(options.device)) for name, loss in losses.items()}
    settings = asdict(options)
    for name in ("data", "out", "device", "batches", "batch_size", "crops"):
        del settings[name]
    settings["power"] = settings.pop("power_iterations")  # as `analyze_hessian` and files of before name it
    kept, total = PartialHessian.open(session.folder, tasks, batches, settings), len(tasks) * n
    session.partial_results = kept.file
    if kept.note:
        session.say(kept.note)

    def so_far() -> str:
        return f"{len(kept)} of {total} mini-batches are kept in {kept.file}: the same command goes on there"

    with noted_on_interrupt(so_far):
        progress = _progress(session, total - len(kept))
        return analyze_hessian(tasks, batches, **settings, progress=progress, kept=kept)


def _progress(session: AnalysisSession, total: int) -> ProductDone:
    """Reports mini-batches to the session, and the products of the one that is computed."""
    begun: list[tuple[str, int]] = []

    def product_done(name: str, batch: int, products: int, residual: float) -> None:
        if (name, batch) not in begun:
            begun.append((name, batch))
        left = "" if math.isnan(residual) else f", residual {residual:.1e}"
        if session.progress is not None:
            session.progress("mini-batch", len(begun) - 1, total, f"{name}: {products} products{left}")

    return product_done


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
    progress: ProductDone = lambda name, batch, products, residual: None,
    kept: PartialHessian | None = None,
) -> HessianResult:
    """Largest and most negative eigenvalues (Lanczos) of each task's loss on each mini-batch and, on request,
    those of largest magnitude (power iteration), the trace (Hutchinson) and the density (quadrature).

    Of a masked image model it is the method's own loss under masks fixed by the batches' keys; of a
    classifier the negative log-likelihood, with `weight_decay` plus L2: the recipe of Park and Kim (ICLR
    2022, arXiv 2202.06709), who take batches of augmented training images.

    Args:
        tasks: methods or classifiers by name, computed without drop path and dropout.
        batches: mini-batches, the same for all tasks.
        top, bottom: number of largest (1 or more) and of most negative eigenvalues.
        parameters: "encoder", so that methods with other decoders and fusions compare, or "all".
        weight_decay: coefficient of an L2 term that is added to the loss (`HessianOperator`).
        mixed: classifiers mix images and smooth labels as in training.
        power: number of values by power iteration too, up to 100 products each; Park and Kim take 5.
        trace_probes: random vectors for the trace, a product each; 0 leaves it out.
        density_probes: random vectors for the density, `DENSITY_STEPS` products each; 0 leaves it out.
        tol: residual of each value over its own magnitude at which Lanczos stops.
        seed: random seed of keys where batches have none, and of starting vectors.
        progress: called after each product; the residual is relative to its own value, NaN where there is
            none.
        kept: mini-batches of an interrupted call, which are not computed again, and where new ones are kept.

    Raises:
        LaminaError: where there is no batch or task, and as `HessianOperator` does.
    """
    batches = list(batches)
    if not batches or not tasks:
        raise LaminaError("curvature needs a model and a batch of images; give one of each at least")
    if top < 1 or min(bottom, power, trace_probes, density_probes) < 0:
        raise LaminaError("curvature takes top of 1 or more, and bottom, power and probes of 0 or more")
    wanted = Wanted(top, bottom, power, trace_probes, density_probes, tol, seed)
    found: dict[str, list[BatchCurvature]] = {name: [] for name in tasks}
    sizes: dict[str, int] = {}
    for i, batch in enumerate(batches):  # models in turn, so that one that cannot be derived says so early
        for name, task in tasks.items():
            earlier = None if kept is None else kept.get(name, i)
            if earlier is not None and name in sizes:
                found[name].append(earlier)
                continue
            operator = HessianOperator(task, batch, parameters, weight_decay, mixed, seed)
            sizes[name] = operator.n

            def tick(residual: float, name: str = name, i: int = i, operator: Any = operator) -> None:
                progress(name, i, operator.products, residual)

            one = earlier or measure_batch(operator, len(batch), i, wanted, tick)
            del operator, tick  # before the next one: its graph is most of the memory
            found[name].append(one)
            if kept is not None and earlier is None:
                kept.add(name, i, one)
    models = {name: tuple(rows) for name, rows in found.items()}
    return HessianResult(models, parameters, weight_decay, mixed, sizes)
