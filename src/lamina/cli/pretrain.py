"""The verbs of the command line: each a typed function whose docstring is its help."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
import yaml

from lamina.api import report_callbacks, tokenizer_callbacks
from lamina.cli.evaluate import READING, Data, Flat, Model, Reading, console
from lamina.cli.parse import PretrainArguments
from lamina.cli.progress import ImagesBar
from lamina.core.config import to_mapping
from lamina.core.errors import LaminaError
from lamina.core.files import write_atomically
from lamina.data.check import check
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.data.sources import Split
from lamina.features.embed import embed as embed_images
from lamina.interop.complete import complete
from lamina.interop.handover import export_run
from lamina.interop.init_weights import start_from
from lamina.pretraining import changes_of_run, run_pretrain
from lamina.recipes.build import build_task, compose_task
from lamina.recipes.memory import MemoryEstimate, estimate_memory
from lamina.recipes.recipe import Recipe
from lamina.report.page import write_report
from lamina.report.reconstructions import reconstruct_files, remark
from lamina.runs.data_facts import data_facts
from lamina.runs.run import Run
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train.checking import check_training
from lamina.train.distributed import is_main
from lamina.train.options import plan_run


def pretrain(arguments: PretrainArguments) -> int:
    """Pre-train, or with --dry-run say what would be done; returns the exit code."""
    if arguments.dry_run:
        run = Run(arguments.out)
        own = run if arguments.resume and run.exists() else None
        describe(arguments.fields, arguments.data, init=arguments.init, own=own)
        return 0
    outcome = run_pretrain(
        arguments.fields,
        arguments.data,
        arguments.out,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        init=arguments.init,
        callbacks=report_callbacks,
    )
    run = Run(arguments.out)
    if is_main() and run.report_file.is_file():
        console.print(f"report {run.report_file}", markup=False)
    return outcome.exit_code


def describe(
    recipe: Recipe, data: str, part: Split | None = None, init: str | None = None, own: Run | None = None
) -> None:
    """The complete recipe, the steps and the memory of a run that is not started, on a part of the data.

    Refuses what the run would refuse: images, parts, teachers, its device, its optimiser, weights to start
    from that do not fit, and, of a run that is resumed (`own`), options that may not change.
    """
    source = open_source(data, part)
    images = len(source)
    for note in source.notes:
        console.print(f"data: {note}", markup=False)
    resolved = complete(recipe, source, own.init() if own else init, own.recipe() if own else None).recipe
    if own is not None:
        changes_of_run(own, resolved, data_facts(data, source), init)
    console.print(yaml.safe_dump(to_mapping(resolved), sort_keys=False, allow_unicode=True), markup=False)
    plan = plan_run(recipe.train, images)
    with torch.device("meta"):
        task = compose_task(resolved)
    warnings = check_training(task, recipe.optim, recipe.train, plan)
    if init is not None and own is None:
        loaded = start_from(build_task(resolved).encoder, init, resolved.encoder.init_channels)
        console.print(f"would start from {init}: {loaded}", markup=False)
    console.print(
        f"{images} images, {plan.total_steps} steps of {recipe.train.batch_size}, "
        f"{plan.steps_per_epoch:.1f} steps in an epoch",
        markup=False,
    )
    batch = recipe.train.micro_batch_size or recipe.train.batch_size
    console.print(tell_memory(estimate_memory(resolved, batch), batch), markup=False)
    for line in warnings:
        console.print(line, markup=False)


def tell_memory(estimate: MemoryEstimate, batch: int) -> str:
    """An estimate in two lines."""
    n = estimate.parameters
    trained = f"{n / 1e6:.1f} M" if n >= 100_000 else f"{n:,}"
    total, *parts = map(
        tell_bytes, (estimate.total, estimate.weights, estimate.training, estimate.activations)
    )
    return (
        f"{trained} parameters to train; about {total} in fp32 for {batch} images at a time\n"
        f"(weights {parts[0]}, gradients and optimiser {parts[1]}, activations {parts[2]})"
    )


def tell_bytes(n: float) -> str:
    """In GiB, or in MiB where that says little."""
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"


def reconstruct(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE")],
    /,
    out: Path,
    step: int | None = None,
) -> int:
    """Hide patches of images, let a run fill them in, and save original, masked input and reconstruction.

    Where the run's target normalises each patch, as MAE's does, the mean and deviation of the true patch are
    given back to its prediction; a line says so.

    Args:
        run: The run's folder.
        images: Image files.
        out: Folder for the pictures.
        step: Checkpoint to take; by default the newest.
    """
    for file in reconstruct_files(run, images, out, step):
        console.print(str(file), markup=False)
    if (said := remark(run)) is not None:
        console.print(said, markup=False)
    return 0


def embed(
    model: Model,
    data: Data,
    /,
    out: Path,
    features: Literal["last", "fused"] = "last",
    pool: Literal["cls", "mean"] = "mean",
    reading: Flat[Reading] = READING,
) -> int:
    """Save one feature vector per image, with names and what was used.

    Exit code 1 where so many images could not be read that a training would stop (as in `lamina data check`).

    Args:
        model: A run, a step of a run (runs/mff@100), a timm name, or a weights file.
        data: Images: a folder, a .txt list, a quoted glob, or a sample.
        out: .npz or .csv file to write.
        features: last: the last block. fused: what the decoder was given.
        pool: cls: the class token. mean: the mean of the patch tokens.
        reading: How features are computed.
    """
    with ImagesBar() as bar:
        given = reading.arguments()
        table = embed_images(model, data, out, features=features, pool=pool, progress=bar, **given)
    n, bad = len(table.index), len(table.faults)
    console.print(f"{n} images in {out}", markup=False)
    for note in table.notes:
        console.print(note, markup=False)
    if bad <= (most := DataOptions().bad_files_limit(n + bad)):
        return 0
    console.print(f"a run stops at more than {most} images that cannot be read: exit code 1", markup=False)
    return 1


def data_check(data: Data, /, in_chans: int = 3, duplicates: bool = False, json: Path | None = None) -> int:
    """Read every image as training would, and list what cannot be read, with the reason.

    Exit code 0 where pre-training would go through, 1 where it would stop for too many bad files.

    Read are JPEG (.jpg .jpeg .jpe .jfif), PNG (.png), WebP (.webp), AVIF (.avif), GIF (.gif), BMP (.bmp
    .dib), TIFF (.tif .tiff; many channels with the extra tiff), NumPy arrays (.npy) and Netpbm (.pbm .pgm
    .ppm .pnm). Files with other endings in a folder are passed over, and counted.

    Args:
        data: Images: a folder, a .txt list, a quoted glob, or a sample.
        in_chans: Channels of the encoder that is to be trained: files that do not fit it cannot be read.
        duplicates: Also list files with the same content.
        json: Also write the result to this file.
    """
    source, training = open_source(data, "all"), open_source(data)
    with ImagesBar() as bar:
        result = check(source, None, in_chans, duplicates, training, bar)
    for line in result.lines():
        console.print(line, markup=False)
    if json is not None:
        write_atomically(json, dumps(result.to_json(), indent=1) + "\n")
    return 0 if result.ok else 1


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN")], /, out: Path | None = None
) -> int:
    """Write the page of a run, or of several side by side.

    Args:
        runs: Folders of runs.
        out: HTML file; by default report.html in the run's folder, for a single run.
    """
    if not runs:
        raise LaminaError("name at least one run")
    for run in runs:
        Run(run).recipe()  # a clear sentence where it is none
    if out is None and len(runs) > 1:
        raise LaminaError("several runs side by side need --out FILE.html")
    console.print(str(write_report(list(runs), out or Run(runs[0]).report_file)), markup=False)
    return 0


def export(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")], /, out: Path, to: Literal["timm", "lamina"] = "timm"
) -> int:
    """Hand the encoder over to other tools.

    Args:
        run: A run, or a step of it (runs/mff@100).
        out: Weights file to write, .safetensors; its settings go into a .json beside it.
        to: timm: loads into `timm.create_model` with no key missing or left over. lamina: a classifier
            trained on labels with its fusion, for `lamina.load_supervised`.
    """
    console.print(str(export_run(run, out, to)), markup=False)
    return 0


def tokenizer_train(
    data: Data,
    /,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    options: Flat[TokenizerOptions] = TokenizerOptions(),
) -> int:
    """Train a discrete tokenizer on images, for BEiT's target, and measure it on held-out ones.

    Args:
        data: Images: a folder, a .txt list, a quoted glob, or a sample.
        out: Folder of the tokenizer.
        resume: Go on with the tokenizer in --out, exactly where it was (or start it).
        overwrite: Replace the tokenizer in --out.
        options: Its network and schedule.
    """
    return train_tokenizer(
        data, out, options, resume=resume, overwrite=overwrite, callbacks=tokenizer_callbacks
    ).exit_code
