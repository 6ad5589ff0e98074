"""The verbs `lamina analyze NAME`: each opens models and images, and writes numbers, picture and report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from rich.table import Table
from rich.text import Text

from lamina.analyze import summary
from lamina.analyze.attention import analyze_attention
from lamina.analyze.frequency import analyze_frequency
from lamina.analyze.fusion_weights import analyze_layers
from lamina.analyze.hessian import analyze_hessian
from lamina.analyze.layer_probes import analyze_depth
from lamina.analyze.options import Curvature, Direction, Looking, Mode
from lamina.analyze.output import Result, Summary
from lamina.analyze.partial_hessian import PartialHessian
from lamina.analyze.patches import analyze_patches
from lamina.analyze.rank import analyze_rank
from lamina.analyze.reconstruction import Filler, analyze_reconstruction
from lamina.analyze.reconstruction_summary import of_reconstruction
from lamina.analyze.retrieval import analyze_retrieval
from lamina.analyze.session import AnalysisTask, run_of
from lamina.analyze.similarity import analyze_similarity
from lamina.analyze.training_loss import mini_batches, open_loss
from lamina.cli.progress import HessianBar, LookingBar
from lamina.core.console import make_console
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.data.file_names import printable
from lamina.interop.load import load_encoder
from lamina.methods.reconstruct import check_pixels
from lamina.report.analyses import write_analyses_page
from lamina.report.page import write_report
from lamina.runs.model_spec import locate_step
from lamina.runs.run import Run, load_method
from lamina.supervised.classifier import Supervised
from lamina.train.distributed import choose_device

T = TypeVar("T")
Models = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ...", help_behavior_hint="")]
Flat = Annotated[T, tyro.conf.arg(name="")]
Probe = Literal["knn", "linear"]

console = make_console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)


LOOKING = Looking()
PROBED = Looking(images=1000, batch_size=64)


def layers(runs: Models, /, out: Path | None = None) -> int:
    """Which blocks a run's decoder was given: weights over the steps, norm shares, bias numbers.

    Args:
        runs: Runs with --fusion mff.
        out: Folder for JSON, PNG and SVG; by default RUN/analyses, for a single run.
    """
    for spec in runs:
        if (run := run_of(spec)) is not None and not Run(spec).exists():
            raise LaminaError(f"{spec} is a step, and weights are logged over all steps; give {run.path}")
    task = AnalysisTask("layers", runs, Looking(out=out))
    result = analyze_layers(task.named)
    return _done(task, result, summary.of_layers(result))


def frequency(
    models: Models,
    /,
    mode: Mode = "exact",
    direction: Direction = "radial",
    sub_blocks: bool = True,
    looking: Flat[Looking] = LOOKING,
) -> int:
    """Which spatial frequencies tokens carry, after every attention and MLP; two bands of the last layer.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        mode: exact: true frequencies, any grid. park-kim: the published notebook's arithmetic.
        direction: radial: rings. diagonal: the same frequency along both axes.
        sub_blocks: After attention too, not after whole blocks alone.
        looking: Images and output.
    """
    if mode == "park-kim":
        direction = "diagonal"
    task = AnalysisTask("frequency", models, looking, mode=mode, direction=direction, sub_blocks=sub_blocks)
    with LookingBar() as bar:
        result = analyze_frequency(task.subjects(bar), mode=mode, direction=direction, sub_blocks=sub_blocks)
    return _done(task, result, summary.of_frequency(result))


def attention(models: Models, /, looking: Flat[Looking] = LOOKING) -> int:
    """How far and how widely each head looks: mean attention distance and entropy.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        looking: Images and output.
    """
    task = AnalysisTask("attention", models, looking)
    with LookingBar() as bar:
        result = analyze_attention(task.subjects(bar))
    return _done(task, result, summary.of_attention(result))


def similarity(
    models: Models, /, pool: Literal["mean", "cls"] = "mean", looking: Flat[Looking] = LOOKING
) -> int:
    """Which layers are alike, within a model and between models: debiased linear CKA.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        pool: mean: the mean of the patch tokens. cls: the class token.
        looking: Images and output.
    """
    task = AnalysisTask("similarity", models, looking, pool=pool)
    with LookingBar() as bar:
        result = analyze_similarity(task.subjects(bar), pool=pool)
    return _done(task, result, summary.of_similarity(result))


def rank(models: Models, /, views: int = 0, looking: Flat[Looking] = LOOKING) -> int:
    """How many dimensions features use: RankMe, effective rank, alpha-ReQ, LiDAR.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        views: Random crops of each image for LiDAR, 2 or more; 0 leaves it out.
        looking: Images and output; take more images than the network has channels.
    """
    task = AnalysisTask("rank", models, looking, views=views)
    with LookingBar() as bar:
        result = analyze_rank(task.subjects(bar), views=views, seed=looking.seed)
    return _done(task, result, summary.of_rank(result))


def depth(
    models: Models, /, protocols: tuple[Probe, ...] = ("knn", "linear"), looking: Flat[Looking] = PROBED
) -> int:
    """After which block the useful information is: kNN and linear probe on every layer.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        protocols: Probes.
        looking: Labelled images, so many of the training and of the test part each; output.
    """
    task = AnalysisTask("depth", models, looking, protocols=protocols)
    backbones = {name: load_encoder(spec, encoder=looking.network) for name, spec in task.named.items()}
    with LookingBar() as bar:
        result = analyze_depth(
            backbones,
            task.data,
            images=looking.images,
            protocols=protocols,
            batch_size=looking.batch_size,
            workers=looking.workers,
            device=looking.device,
            seed=looking.seed,
            progress=bar,
        )
    return _done(task, result, summary.of_depth(result))


def patches(
    models: Models, /, shown: int = 6, at: tuple[int, int] | None = None, looking: Flat[Looking] = LOOKING
) -> int:
    """What single patches hold: colours by PCA, norms that stand out, cosines, the class token's attention.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        shown: Images in the picture; numbers are over all.
        at: Row and column of the patch that others are compared with; by default the middle.
        looking: Images and output.
    """
    task = AnalysisTask("patches", models, looking, shown=shown, at=at)
    with LookingBar() as bar:
        result = analyze_patches(task.subjects(bar), images=shown, at=at, seed=looking.seed)
    return _done(task, result, summary.of_patches(result))


def retrieval(models: Models, /, queries: int = 4, k: int = 5, looking: Flat[Looking] = LOOKING) -> int:
    """What an encoder holds for alike: the nearest images of some queries, precision and mAP by labels.

    Args:
        models: Runs, steps of runs (runs/mff@100), timm names, weights files.
        queries: Images in the picture; numbers are over all.
        k: Neighbours of each.
        looking: Images and output.
    """
    task = AnalysisTask("retrieval", models, looking, queries=queries, k=k)
    with LookingBar() as bar:
        result = analyze_retrieval(task.subjects(bar), queries=queries, k=k, seed=looking.seed)
    return _done(task, result, summary.of_retrieval(result))


def reconstruction(runs: Models, /, looking: Flat[Looking] = LOOKING) -> int:
    """What reconstructions leave out: the error at hidden patches by spatial frequency, over the original.

    Args:
        runs: Runs that predict pixels, or steps of runs (runs/mff@100); masks are fixed by the images.
        looking: Images and output.
    """
    task = AnalysisTask("reconstruction", runs, looking)
    place = choose_device(looking.device)
    methods = {name: load_method(*locate_step(spec))[0].to(place) for name, spec in task.named.items()}
    for name, method in methods.items():
        check_pixels(method, name)
    with LookingBar() as bar:
        subjects = task.subjects(bar)
        fillers = {name: Filler(method, subjects[name].batches) for name, method in methods.items()}
        result = analyze_reconstruction(fillers)
    return _done(task, result, of_reconstruction(result))


CURVATURE = Curvature()


def hessian(
    runs: Models,
    /,
    curvature: Flat[Curvature] = CURVATURE,
    data: str | None = None,
    out: Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> int:
    """How sharp a run's loss is: largest and most negative eigenvalues, mini-batch by mini-batch.

    Args:
        runs: Runs, or steps of runs (runs/mff@100): the loss is their own, masks are fixed by the images.
        curvature: What is computed.
        data: Images; by default those that the first run was trained on.
        out: Folder for JSON, PNG and SVG; by default RUN/analyses, for a single run.
        device: auto, cpu, cuda, ...
        seed: Of the images that are drawn, and of starting vectors.
    """
    asked = asdict(curvature)
    n, size, crops = (asked.pop(name) for name in ("batches", "batch_size", "crops"))
    looking = Looking(data=data, out=out, images=n * size, batch_size=size, device=device, seed=seed)
    task = AnalysisTask("hessian", runs, looking, **asdict(curvature))
    place = choose_device(device)
    losses = {name: open_loss(spec) for name, spec in task.named.items()}
    if curvature.mixed and not all(isinstance(loss.task, Supervised) for loss in losses.values()):
        raise LaminaError("only classifiers mix images; leave --mixed out")
    batches = mini_batches(losses, task.data, crops, n, size, seed)
    tasks = {name: loss.task.to(place) for name, loss in losses.items()}
    kept, total = PartialHessian.open(task.out, tasks, batches, {**asked, "seed": seed}), len(tasks) * n
    if kept.note:
        console.print(kept.note, markup=False)

    def so_far() -> str:
        """What an interruption leaves."""
        return f"{len(kept)} of {total} mini-batches are kept in {kept.file}: the same command goes on there"

    with noted_on_interrupt(so_far), HessianBar(total - len(kept)) as bar:
        result = analyze_hessian(tasks, batches, **asked, seed=seed, progress=bar, kept=kept)
    code = _done(task, result, summary.of_hessian(result))
    kept.remove()
    return code


def _write_page(task: AnalysisTask) -> Path:
    """The page that shows the analysis: the run's report, or the folder's own."""
    if task.run is not None and task.out == task.run.analyses:
        return write_report([task.run.path], task.run.report_file)
    return write_analyses_page(task.out)


def _done(task: AnalysisTask, result: Result, told: Summary) -> int:
    """Write everything, then say the main numbers and where the rest is."""
    told = task.noted(told)
    files = (*task.write(result, told, shlex.join(["lamina", *sys.argv[1:]])), _write_page(task))
    table = Table(*told.header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in told.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # names are no markup
    console.print(table)
    for line in (*told.notes, *map(str, files)):
        console.print(printable(line), markup=False)
    return 0
