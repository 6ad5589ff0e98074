"""The verbs `lamina evaluate NAME`: each says what it found, keeps it, and writes the run's report anew."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from rich.table import Table

from lamina.cli.progress import ImagesBar
from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.ranges import COUNT, NOT_NEGATIVE, check_ranges
from lamina.core.terminal import why
from lamina.encoder.options import network_options
from lamina.evaluate.probes import evaluate_knn as run_knn
from lamina.evaluate.probes import evaluate_linear as run_linear
from lamina.evaluate.results import ProbeResult
from lamina.features.options import FeatureOptions, KNNOptions, LinearOptions
from lamina.report.page import write_report
from lamina.runs.run import Run

T = TypeVar("T")
Model = Annotated[str, tyro.conf.arg(metavar="MODEL")]
Data = Annotated[str, tyro.conf.arg(metavar="DATA")]
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Fields without a prefix."""

# Where nobody's window is measured, a table may be as wide as it needs.
console = make_console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True)
class Reading:
    """How features are computed; of these the numbers depend on the image size alone."""

    encoder: str | None = None
    """timm name of the network, for a weights file that does not say."""
    heads: Annotated[int | None, tyro.conf.arg(name="encoder.heads"), COUNT] = None
    """Attention heads of the network, for a weights file of an unusual width, which does not say."""
    image_size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Side, or height and width, of the images in px; unset means those of the training. At another size
    positions are resampled."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per forward."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    cache: Path | None = None
    """Folder for features, found again by the hash of weights, images and transform; may be deleted."""

    def arguments(self) -> dict[str, Any]:
        """As the functions of `lamina.features` and `embed` take them, the network's options as one."""
        given = {name: value for name, value in vars(self).items() if name != "heads"}
        return {**given, "encoder": network_options(self.encoder, self.heads)}

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


READING, FEATURES, KNN, LINEAR = Reading(), FeatureOptions(), KNNOptions(), LinearOptions()


def evaluate_knn(
    model: Model,
    data: Data,
    /,
    json: Path | None = None,
    leave_one_out: bool = False,
    features: Flat[FeatureOptions] = FEATURES,
    options: Flat[KNNOptions] = KNN,
    reading: Flat[Reading] = READING,
) -> int:
    """k nearest neighbours on frozen features, beside the untrained network and raw pixels.

    Cosine similarity, votes weighted by exp(similarity / temperature). k, centring, features and pool are
    chosen on the training images, never on the test images.

    Args:
        model: A run, a step of a run (runs/mff@100), a timm name, or a weights file.
        data: Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample.
        json: Also write the result to this file.
        leave_one_out: All images are training and test images at once, each without its own vote.
        features: Which vectors of the encoder are judged.
        options: The sweep.
        reading: How features are computed.
    """
    _prepare(json)
    with ImagesBar() as bar:
        result = run_knn(
            model,
            data,
            options=options,
            features=features,
            leave_one_out=leave_one_out,
            progress=bar,
            **reading.arguments(),
        )
    return tell_result(result, json)


def evaluate_linear(
    model: Model,
    data: Data,
    /,
    json: Path | None = None,
    seed: int = 0,
    features: Flat[FeatureOptions] = FEATURES,
    options: Flat[LinearOptions] = LINEAR,
    reading: Flat[Reading] = READING,
) -> int:
    """Linear probe on frozen features, beside the untrained network and raw pixels.

    Features are computed once and standardised; the regularisation, the features and the pool are chosen on a
    part of the training images, never on the test images.

    Args:
        model: A run, a step of a run (runs/mff@100), a timm name, or a weights file.
        data: Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample.
        json: Also write the result to this file.
        seed: Of the part of the training images that choices are made on.
        features: Which vectors of the encoder are judged.
        options: The sweep.
        reading: How features are computed.
    """
    _prepare(json)
    with ImagesBar() as bar:
        result = run_linear(
            model, data, options=options, features=features, seed=seed, progress=bar, **reading.arguments()
        )
    return tell_result(result, json)


def _prepare(file: Path | None) -> None:
    """What would stop the work at its end is found at its beginning."""
    if file is not None:
        check_writable(file)


def tell_result(result: ProbeResult, file: Path | None) -> int:
    """The table of an evaluation; a run's report is written anew with it."""
    if file is not None:
        result.save(file)
    header, *rows = result.table()
    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(
        f"{result.protocol} on {result.data}: {result.n_train} training and {result.n_test} test images, "
        f"{len(result.classes)} classes, the largest with {100 * (result.majority or 0):.1f} % of the test "
        "images",
        markup=False,
    )
    console.print(table)
    said = [] if result.timing is None else [str(result.timing)]
    for note in (*result.notes, *said):
        console.print(note, markup=False)
    refresh_report(result.model)
    return 0


def refresh_report(model: str) -> None:
    """Write a run's report anew with what was found of it. Results are on the disk by then: a report that
    cannot be written is said, and is no error."""
    run = Run(model)
    if not run.exists():
        return
    try:
        console.print(f"report {write_report([run.path], run.report_file)}", markup=False)
    except (OSError, LaminaError) as error:
        console.print(f"the run's report stays as it was: {why(error)}", markup=False)
