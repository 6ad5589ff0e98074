"""From a folder of images to a trained tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lamina.callbacks.bad_files import FaultMonitor
from lamina.core.batch import Batch
from lamina.core.config import flatten, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.records import write_json
from lamina.core.rng import Purpose, permutation, seed_for, torch_seed
from lamina.core.terminal import tolerant_output
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.open import Spec, open_source
from lamina.data.sources import Source, Subset
from lamina.pretraining import print_notes
from lamina.runs.data_facts import data_facts
from lamina.runs.resumable_folder import Started, opened_on_main
from lamina.runs.same_settings import begin_or_change, changes_on_resume
from lamina.tokenizer.folder import TokenizerFolder, build_tokenizer
from lamina.tokenizer.measure import measure_tokenizer
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.vae import DiscreteVAE
from lamina.train.callbacks import Callback
from lamina.train.distributed import Ranks, choose_device, from_main, process_group
from lamina.train.loop import fit
from lamina.train.state import Outcome

MOST_HELD_OUT = 512
"""Held-out images that are measured."""

MoreCallbacks = Callable[[TokenizerFolder, Source, TokenizerOptions], Sequence[Callback]]


class SaveTokenizer(Callback):
    """Keeps the newest weights in the folder, and measures them on held-out images at the end."""

    required = True

    def __init__(self, folder: TokenizerFolder, held_out: Source, options: TokenizerOptions) -> None:
        self.folder, self.held_out, self.options = folder, held_out, options
        self.task: nn.Module | None = None

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        """Save the weights as they are."""
        self.folder.save(task, step)
        self.task = task

    def on_resume(self, step: int, folder: Path, task: nn.Module) -> None:
        """Write the weights anew: what a kill left behind may be of another step, damaged, or gone."""
        self.on_checkpoint(step, folder, task)

    def on_end(self, outcome: Outcome) -> None:
        """Measure, print and keep what was found, of a training that is finished."""
        if outcome.exit_code:
            return
        assert isinstance(self.task, DiscreteVAE)  # there is a checkpoint by now
        tokenizer = on_training_device(self.task, self.options)
        result = measure_tokenizer(tokenizer, held_out_batches(self.held_out, self.options))
        write_json(self.folder.results, {**result.to_json(), "step": outcome.step})
        print(result, flush=True)


def on_training_device(tokenizer: DiscreteVAE, options: TokenizerOptions) -> DiscreteVAE:
    """The tokenizer, moved to the device that trains it, for measurements at the end of a training: callbacks
    get checkpoints as copies in host memory, and what is read from a folder is there too."""
    return tokenizer.to(choose_device(options.device))


def held_out_batches(source: Source, options: TokenizerOptions) -> Iterator[Batch]:
    """Centre crops of all images of `source`."""
    size = (options.image_size, options.image_size)
    return eval_batches(source, size, options.in_chans, 64, 0, options.reading())


def _held_out(data: Spec) -> Source:
    """At most `MOST_HELD_OUT` images of the validation part, drawn at random."""
    source = open_source(data, "val")
    return Subset(source, permutation(0, 0, len(source))[:MOST_HELD_OUT].tolist())


def train_tokenizer(
    data: Spec,
    out: str | Path,
    options: TokenizerOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: MoreCallbacks | None = None,
) -> Outcome:
    """Train a tokenizer on the images of `data`, into the folder `out`; call it on every rank.

    Where the data have no validation part of their own, a fifth of them is held out for measuring.

    Raises:
        LaminaError: where the options, the data or the folder are invalid.
    """
    options, folder = options or TokenizerOptions(), TokenizerFolder(Path(out))
    with (
        tolerant_output(),
        process_group(options.device) as ranks,
        opened_on_main(
            ranks, folder.path, folder.exists, "tokenizer", resume=resume, overwrite=overwrite
        ) as opened,
    ):
        going_on = bool(from_main(int(resume and folder.exists()), ranks))
        source, held_out = open_source(data, "train"), _held_out(data)
        print_notes(source, ranks)
        facts = data_facts(data, source)
        changed = _changes(folder, options, facts.names_sha256) if going_on else None
        task, loader = _new_tokenizer(options), _loader(source, options, ranks)
        write = partial(folder.start, options, facts.source, facts.names_sha256)
        begin_or_change(ranks, opened, write, changed, write)
        ours = [
            *([Started(opened)] if opened else []),
            FaultMonitor(loader.budget),
            SaveTokenizer(folder, held_out, options),
            *(callbacks(folder, held_out, options) if callbacks and ranks.main else ()),
        ]
        return fit(task, loader, options.optim(), options.train(), folder.path, ours, resume=going_on)


def _new_tokenizer(options: TokenizerOptions) -> DiscreteVAE:
    """The tokenizer, initialised from the seed. Raises `LaminaError` for an image size that does not fit."""
    with torch_seed(seed_for(options.seed, Purpose.INIT)):
        task = build_tokenizer(options)
    task(torch.zeros(1, options.in_chans, options.image_size, options.image_size))
    return task


def _loader(source: Source, options: TokenizerOptions, ranks: Ranks) -> TrainLoader:
    return TrainLoader(
        source,
        options.reading(),
        options.seed,
        options.batch_size,
        ranks.rank,
        ranks.world,
        image_size=(options.image_size, options.image_size),
        in_chans=options.in_chans,
    )


def _changes(
    folder: TokenizerFolder, options: TokenizerOptions, names_sha256: str
) -> dict[str, tuple[object, object]]:
    """The options that a resumed training changes; see `changes_on_resume`. Raises for other images."""
    before, now = (flatten(to_mapping(each)) for each in (folder.options(), options))
    changed = changes_on_resume(before, now, folder.config, options.train())
    if folder.read().get("names_sha256") != names_sha256:
        raise LaminaError(
            f"the tokenizer in {folder.path} was started on other images; restore them, or start a new one"
        )
    return changed
