"""The largest and most negative eigenvalues of a loss's Hessian, mini-batch by mini-batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial as bind
from typing import Any

from torch import nn

from lamina.analyze.catalog import HessianOptions
from lamina.analyze.curvature.density import Density, pooled
from lamina.analyze.curvature.mini_batch import BatchCurvature, measure_batch
from lamina.analyze.curvature.operator import chosen_parameters
from lamina.analyze.options import Parameters
from lamina.analyze.output import Result
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
class HessianResult(Result):
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


def run(session: AnalysisSession, options: HessianOptions) -> HessianResult:
    """The analysis as `lamina.analyze.catalog` lists it; what an interruption leaves is kept on disk."""
    losses = {name: open_loss(spec) for name, spec in session.models.items()}
    if options.mixed and not all(isinstance(loss.task, Supervised) for loss in losses.values()):
        raise LaminaError("only classifiers mix images; leave --mixed out")
    n, size, seed = options.batches, options.batch_size, options.seed
    batches = mini_batches(losses, session.data, options.crops, n, size, seed)
    tasks = {name: loss.task.to(choose_device(options.device)) for name, loss in losses.items()}
    partial = PartialHessian.open(session.folder, tasks, batches, _settings(options))
    total = len(tasks) * n
    session.partial_results = partial.file
    if partial.note:
        session.say(partial.note)

    def so_far() -> str:
        done = f"{len(partial)} of {total} mini-batches"
        return f"{done} are kept in {partial.file}: the same command goes on there"

    with noted_on_interrupt(so_far):
        return analyze_hessian(tasks, batches, options, _progress(session, total - len(partial)), partial)


def _settings(options: HessianOptions) -> dict[str, Any]:
    """What the numbers of a mini-batch depend on beside its images, by the names in files of before."""
    settings = asdict(options)
    for name in ("data", "out", "device", "batches", "batch_size", "crops"):
        del settings[name]
    settings["power"] = settings.pop("power_iterations")
    return settings


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
    options: HessianOptions | None = None,
    progress: ProductDone = lambda name, batch, products, residual: None,
    partial: PartialHessian | None = None,
) -> HessianResult:
    """Largest and most negative eigenvalues (Lanczos) of each task's loss on each mini-batch and, on request,
    those of largest magnitude (power iteration), the trace (Hutchinson) and the density (quadrature).

    Of a masked image model it is the method's own loss under masks fixed by the batches' keys; of a
    classifier the negative log-likelihood, with `weight_decay` plus L2: the recipe of Park and Kim (ICLR
    2022, arXiv 2202.06709), who take batches of augmented training images.

    Args:
        tasks: methods or classifiers by name, computed on their own devices without drop path and dropout.
        batches: mini-batches, the same for all tasks.
        options: what is computed, and how exactly. Not read: the names of images, their number and size,
            crops, device and folder, all of which follow from `tasks` and `batches`.
        progress: called after each product; the residual is relative to its own value, NaN where there is
            none.
        partial: mini-batches of an interrupted call, which are not computed again; new ones are added.

    Raises:
        LaminaError: where there is no batch or task, and as `HessianOperator` does.
    """
    options = options or HessianOptions()
    batches = list(batches)
    if not batches or not tasks:
        raise LaminaError("curvature needs a model and a batch of images; give one of each at least")
    found: dict[str, list[BatchCurvature]] = {name: [] for name in tasks}
    for i, batch in enumerate(batches):  # models in turn, so that one that cannot be derived says so early
        for name, task in tasks.items():
            curvature = None if partial is None else partial.get(name, i)
            if curvature is None:
                curvature = measure_batch(task, batch, i, options, bind(progress, name, i))
                if partial is not None:
                    partial.add(name, i, curvature)
            found[name].append(curvature)
    sizes = {
        name: sum(parameter.numel() for parameter in chosen_parameters(task, options.parameters).values())
        for name, task in tasks.items()
    }
    models = {name: tuple(rows) for name, rows in found.items()}
    return HessianResult(models, options.parameters, options.weight_decay, options.mixed, sizes)
