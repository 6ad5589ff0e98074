"""Online evaluation of the encoder: RankMe and kNN on fixed images, and which depth its fusion favours."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from lamina.analyze.fusion_weights import bias
from lamina.analyze.measures.rank import rankme
from lamina.analyze.models import Images, subsample
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.frozen import eval_mode
from lamina.core.text import printable
from lamina.data.open import Spec, held_out, open_source
from lamina.data.sources import Source
from lamina.encoder.encoder import Encoder
from lamina.features.knn import knn_predict
from lamina.mim import mim_of
from lamina.recipes.build import Task
from lamina.recipes.recipe import Recipe
from lamina.train.callbacks import Callback
from lamina.train.options import plan_run
from lamina.train.precision import autocast
from lamina.train.state import TrainState

log = logging.getLogger("lamina")

IMAGES = 256
"""Number of images in an evaluation, where `monitor.images` is unset."""

SHARE = 0.005
"""Share of the training's counted work that evaluations may take; measured, they took less than what is
counted. With the report's pictures and page (`lamina.report.live.LARGEST_SHARE`) it is 1 % of the time."""

MAX_EVALUATIONS = 100
"""Most evaluations in a run, approximately: more points make no better curve."""

NEIGHBOURS = 10
FEWEST_OF_A_CLASS = 4
"""Fewest images in a class, on average: with fewer, leave-one-out kNN is too noisy."""

MOST_TOKENS = 8192
"""Most tokens in one forward pass of an evaluation."""


@dataclass(frozen=True)
class MonitorPlan:
    """Which images the encoder is evaluated on, and how often."""

    images: Source
    labelled: Source | None
    """Images for kNN, `images` themselves or others; None for no kNN."""
    every_steps: int | None
    """Steps between two evaluations; None where the run is too short for any."""
    share: float
    """Counted work of the evaluations over that of the training steps."""

    def __str__(self) -> str:
        if self.every_steps is None:
            return (
                "monitor: the run is too short for an evaluation of the encoder; --monitor.every-steps N "
                "forces one"
            )
        what = f"RankMe of {len(self.images)} images"
        if self.labelled is self.images:
            what = f"RankMe and kNN of {len(self.images)} images"
        elif self.labelled is not None:
            what += f" and kNN of {len(self.labelled)}"
        share = f"{100 * self.share:.1f} % of the steps' work by count"
        return f"monitor: {what} every {self.every_steps} steps, {share}"


def plan_monitor(
    recipe: Recipe, data: Spec, source: Source, method: Task, ranks: int = 1
) -> MonitorPlan | None:
    """The evaluations of a run by `recipe` (complete) on `source`, which `data` names; None for none.

    Images are those that `lamina analyze --seed 0` draws: of the held-out part, or of all where there is
    none. Without `monitor.every_steps` a run that is too short for one (see `interval`) is not evaluated. A
    resumed run is evaluated at the same steps; with another number of ranks they may be others.

    Raises:
        LaminaError: where there are fewer images than `monitor.images`, or `monitor.knn_data` has no classes
            or too few images of each.
    """
    options = recipe.monitor
    requested = IMAGES if options.images is None else options.images
    if requested == 0:
        return None
    labelled = None if options.knn_data is None else _labelled(options.knn_data, requested)
    batch_size, total = recipe.train.batch_size, plan_run(recipe.train, len(source)).total_steps
    each = monitor_cost(recipe, method)
    cost = each * requested * (1 if labelled is None else 2)
    every = options.every_steps or interval(cost, batch_size, total, ranks)
    by_default = options.images is None and options.knn_data is None
    if every is None and by_default:
        return None  # nothing was requested, so nothing is opened
    part = _held_out(data, source)
    if options.images is not None and len(part) < requested:
        raise LaminaError(f"monitor.images is {requested}, but there are {len(part)} images; set it lower")
    if len(part) < 2 and by_default:
        return None
    drawn = subsample(part, requested)
    if labelled is None and _knows_classes(drawn):
        labelled = drawn
    read = len(drawn) + (0 if labelled is None or labelled is drawn else len(labelled))
    return MonitorPlan(drawn, labelled, every, each * read * ranks / (every * batch_size) if every else 0.0)


def monitor_cost(recipe: Recipe, method: Task) -> float:
    """How many training images the evaluation of one image costs, at most: the frozen forward of the whole
    image over the forward and backward of the visible patches (1/3 to 4/3 for most methods).

    A block of width D on t tokens multiplies 12 D^2 + 2 t D numbers for each of them: work in proportion to
    D t (6 D + t). A backward pass is twice its forward. Of MAE's decoder the blocks but the first and last
    are counted; every other decoder, target and second view only makes training dearer, and is left out.
    """
    encoder, inner = method.encoder, mim_of(method)
    rows, columns = encoder.grid
    whole = seen = encoder.n_prefix + rows * columns
    if inner is not None and encoder.hide == "drop":
        seen = encoder.n_prefix + inner.masking.n_visible(encoder.grid)
    trained = encoder.depth * _work(seen, encoder.width)
    if inner is not None and recipe.decoder.kind == "mae":
        trained += max(recipe.decoder.depth - 2, 0) * _work(whole, recipe.decoder.width)
    return encoder.depth * _work(whole, encoder.width) / (3 * trained)


def interval(cost: float, batch_size: int, total_steps: int, ranks: int = 1) -> int | None:
    """Steps between two evaluations, each as costly as `cost` training images.

    They are `fewest_steps`, or so many more that the last one is near the end and there are about
    `MAX_EVALUATIONS` at most; None where a run is too short for any. Nothing here is measured, so that a
    resumed run is evaluated at the same steps.
    """
    count = min(total_steps // fewest_steps(cost, batch_size, ranks), MAX_EVALUATIONS)
    return total_steps // count if count else None


def fewest_steps(cost: float, batch_size: int, ranks: int = 1) -> int:
    """The smallest number of steps of which an evaluation is `SHARE` of the work or less.

    k steps are k * batch_size training images, shared by `ranks` processes, of which all but one wait
    during an evaluation: k >= cost * ranks / (SHARE * batch_size).
    """
    return max(1, math.ceil(cost * ranks / (SHARE * batch_size) - 1e-9))


def is_due(step: int, every: int, log_every: int) -> bool:
    """Whether a multiple of `every` lies after the row before, up to the row of `step`. There is a row at
    each multiple of `log_every`, and at the end."""
    before = (step - 1) // log_every * log_every
    return step // every > before // every


class BiasMonitor(Callback):
    """Adds which depth the fusion favours, by weights and by norm shares, to the rows that have them;
    computes nothing else (`lamina.analyze.fusion_weights.bias`).

    Args:
        layers: the blocks that are fused.
        depth: of the encoder.
    """

    def __init__(self, layers: Sequence[int], depth: int) -> None:
        self.layers, self.depth = layers, depth

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """`bias_weight_first_half`, `bias_weight_centre`, `bias_share_first_half`, `bias_share_centre`."""
        found: dict[str, float] = {}
        for what in ("weight", "share"):
            mass = row.get(f"fusion_{what}s")
            if mass is not None:
                numbers = asdict(bias(self.layers, mass, self.depth))
                found |= {f"bias_{what}_{name}": value for name, value in numbers.items()}
        return found


class EncoderMonitor(Callback):
    """Adds `rankme`, and `knn_top1` where there are labels, to the rows at which an evaluation is due.

    Features are the means of the patch tokens after the final norm, of whole images, in evaluation mode and
    the precision of the training. RankMe's are not centred; kNN is leave-one-out with 10 neighbours on
    centred features, so that each image is classified by all others. Images are read once, at the start,
    and stay in memory as they are stored; what cannot be read is left out. Rank 0 evaluates while the
    others wait. Nothing random is drawn, so a run has the weights that it would have without, and a resumed
    one the rows of one that was not interrupted.
    """

    def __init__(self, plan: MonitorPlan, recipe: Recipe) -> None:
        self.plan = plan
        self.log_every = recipe.train.log_every_steps
        self.precision = recipe.train.precision
        self._recipe = recipe
        self._images: list[Batch] = []
        self._labelled: list[Batch] = []

    def on_start(self, state: TrainState) -> None:
        """Read the images. Where that fails nothing is evaluated, and the training continues."""
        plan = self.plan
        try:
            self._images = self._read(plan.images)
            if plan.labelled is plan.images:
                self._labelled = self._images
            elif plan.labelled is not None:
                self._labelled = self._read(plan.labelled)
        except LaminaError as error:
            log.warning("the encoder will not be evaluated during training (%s); training continues", error)
            self._images = []

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """The numbers of an evaluation, where one is due; None for features that are not finite."""
        every = self.plan.every_steps
        if not self._images or every is None or not is_due(step, every, self.log_every):
            return None
        encoder: Encoder = task.encoder  # type: ignore[assignment]  # of any `Task`
        with eval_mode(task), autocast(batch.images.device, self.precision):
            features = features_of(encoder, self._images, batch.images.device)
            labelled = features
            if self._labelled and self._labelled is not self._images:
                labelled = features_of(encoder, self._labelled, batch.images.device)
        found = {"rankme": rankme(features)}
        if self._labelled:
            labels = torch.cat([part.labels for part in self._labelled if part.labels is not None])
            found["knn_top1"] = knn_top1(labelled, labels)
        return found

    def _read(self, source: Source) -> list[Batch]:
        """All images of a source as the encoder takes them, in batches of about `MOST_TOKENS` tokens."""
        options = self._recipe.encoder
        height, width = options.image_size  # type: ignore[misc]  # resolved
        patch = options.patch_size or height
        size = max(1, MOST_TOKENS * patch**2 // (height * width))
        reading = self._recipe.data
        return list(Images(source, (height, width), options.in_chans, size, reading.workers, reading))


def features_of(encoder: Encoder, batches: Sequence[Batch], device: torch.device) -> Float[Tensor, "n D"]:
    """The mean of each image's patch tokens after the final norm, in float32 on the CPU."""
    return torch.cat([_pooled(encoder, batch.images.to(device)).cpu() for batch in batches])


def knn_top1(features: Float[Tensor, "n D"], labels: Int64[Tensor, "n"]) -> float | None:
    """Leave-one-out accuracy of `knn_predict` with 10 neighbours on centred features; None
    where these are not finite, or one alone."""
    if len(features) < 2 or not torch.isfinite(features).all():
        return None
    guesses = knn_predict(features - features.mean(dim=0), labels, None, (NEIGHBOURS,))[0]
    return float((guesses == labels).double().mean())


def _pooled(encoder: Encoder, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
    tokens: Tensor = encoder.norm(encoder(images, (encoder.depth - 1,))[0])
    return tokens[:, encoder.n_prefix :].float().mean(dim=1)


def _work(tokens: int, width: int) -> int:
    return width * tokens * (6 * width + tokens)


def _held_out(data: Spec, source: Source) -> Source:
    """The part that training does not see; all of it where there is none, or it cannot be opened."""
    if held_out(data) == "all":
        return source
    try:
        return open_source(data, "val")
    except LaminaError:
        return source


def _labelled(data: str, n: int) -> Source:
    """Images for kNN from the held-out part of `data`."""
    part = open_source(data, held_out(data))
    if part.labels is None:
        raise LaminaError(
            f"monitor.knn_data {printable(data)} has no classes, or one alone ({part.no_labels}); kNN needs "
            "two or more: root/CLASS/..., or a sample"
        )
    drawn = subsample(part, n)
    if not _knows_classes(drawn):
        classes = len(set(drawn.labels or ()))
        raise LaminaError(
            f"{len(drawn)} images of {classes} class(es) of {printable(data)} are too few for kNN; take "
            f"{FEWEST_OF_A_CLASS} of a class or more (monitor.images)"
        )
    return drawn


def _knows_classes(source: Source) -> bool:
    """Whether each image has enough others of its class for kNN, on average."""
    classes = len(set(source.labels or ()))
    return classes > 1 and len(source) >= FEWEST_OF_A_CLASS * classes
