"""The verbs that take a trained model: `reconstruct`, `embed`, `export` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.cli.arguments import ComputeArguments, Flat, Images, Model
from lamina.cli.output import say
from lamina.core.errors import LaminaError
from lamina.core.text import counted
from lamina.data.options import DataOptions

COMPUTE = ComputeArguments()


def reconstruct(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE")],
    /,
    out: Path,
    step: int | None = None,
) -> int:
    """Mask patches of images, let a run reconstruct them, and save the original, the masked image and the
    reconstruction side by side.

    Where the run's target normalises each patch, as MAE's does, the prediction is shown with the mean and
    standard deviation of the true patch; a line mentions it.

    Args:
        run: Folder of the run.
        images: Image files.
        out: Folder for the pictures.
        step: Step of the checkpoint; by default the newest one.
    """
    from lamina.report.reconstructions import reconstruct_files, remark

    for file in reconstruct_files(run, images, out, step):
        say(str(file))
    if (note := remark(run)) is not None:
        say(note)
    return 0


def embed(
    model: Model,
    data: Images,
    /,
    out: Path,
    features: Literal["last", "fused"] = "last",
    pool: Literal["cls", "mean"] = "mean",
    compute: Flat[ComputeArguments] = COMPUTE,
) -> int:
    """Save one feature vector per image, with the names of the images and the settings.

    The exit code is 1 where so many images cannot be read that a training would stop (see `lamina data
    check`).

    Args:
        out: File to write, .npz or .csv.
        features: last: the output of the last block. fused: the fused features that the decoder reads.
        pool: Vector of an image: the class token (cls) or the mean of the patch tokens (mean).
        compute: How features are computed.
    """
    from lamina.cli.progress import ImagesBar
    from lamina.features.embed import embed as embed_images

    with ImagesBar() as bar:
        table = embed_images(model, data, out, features=features, pool=pool, **compute.arguments(bar))
    n, bad = len(table.index), len(table.faults)
    say(f"{counted(n, 'image')} in {out}")
    for note in table.notes:
        say(note)
    if bad <= (most := DataOptions().bad_files_limit(n + bad)):
        return 0
    say(f"more than {most} images cannot be read, at which a training stops: exit code 1")
    return 1


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN")], /, out: Path | None = None
) -> int:
    """Write the HTML report of a run, or one of several runs side by side.

    Args:
        runs: Folders of runs.
        out: HTML file to write; by default report.html in the run's folder. Needed for several runs.
    """
    if not runs:
        raise LaminaError("name at least one run")
    if out is None and len(runs) > 1:
        raise LaminaError("a report of several runs needs --out FILE.html")
    from lamina.report.page import write_report
    from lamina.runs.run import Run

    for run in runs:
        Run(run).recipe()  # a clear sentence where it is no run
    say(str(write_report(list(runs), out or Run(runs[0]).report_file)))
    return 0


def export(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")], /, out: Path, to: Literal["timm", "lamina"] = "timm"
) -> int:
    """Export the encoder of a run as one weights file.

    Args:
        run: A run, or a step of it (runs/mff@100).
        out: Weights file to write, .safetensors; its settings go into a .json file of the same name.
        to: timm: weights that `timm.create_model` loads with no missing or unexpected key. lamina: a
            classifier that was trained on labels, with its fusion, for `lamina.load_supervised`.
    """
    from lamina.interop.export_run import export_run

    say(str(export_run(run, out, to)))
    return 0
