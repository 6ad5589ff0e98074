"""Models by name, each with the images it is analysed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from lamina.core.batch import Batch, Fault
from lamina.core.errors import LaminaError
from lamina.core.rng import seed_for
from lamina.data.loading.bad_files import unread_notes
from lamina.data.loading.loader import eval_batches
from lamina.data.open import Spec, held_out, open_source
from lamina.data.options import DataOptions
from lamina.data.sources import Source, Subset
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.runs.model_spec import short_names
from lamina.train.distributed import choose_device


@dataclass(frozen=True)
class Images:
    """Images of a source at one size, in batches; they can be iterated over any number of times.

    `reading` are the data options of the model's own recipe: decoding and the share of the centre crop.
    """

    source: Source
    image_size: tuple[int, int]
    in_chans: int
    batch_size: int = 32
    workers: int = 0
    reading: DataOptions | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Callable[[int, int], None] | None = None
    """Called after each batch with the number of images done and of all images."""
    unread: dict[int, Fault] = field(default_factory=dict, compare=False)
    """Images that could not be read so far, by their index."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches in the source's order, on `device`; keys are indices in the source."""
        done = 0
        for batch in eval_batches(
            self.source, self.image_size, self.in_chans, self.batch_size, self.workers, self.reading
        ):
            self.unread.update((fault.index, fault) for fault in batch.faults)
            yield batch.to(self.device)
            done += len(batch) + len(batch.faults)
            if self.progress is not None:
                self.progress(done, len(self.source))

    def notes(self) -> tuple[str, ...]:
        """What was found beside the images, and how many of them could not be read."""
        return (*self.source.notes, *unread_notes(list(self.unread.values()), len(self.source)))


@dataclass(frozen=True)
class ModelOnImages:
    """A model and the images it is analysed on; some analyses iterate over `batches` more than once."""

    backbone: Backbone
    batches: Iterable[Batch]


def open_models(
    models: Sequence[str | Path] | Mapping[str, str | Path],
    data: Spec,
    *,
    images: int | None = 256,
    encoder: str | EncoderOptions | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, ModelOnImages]:
    """Models by name, each with the same images, read at its own size.

    Args:
        models: whatever `load_encoder` takes, and names for them; without names, the end of each path.
        data: images as `open_source` knows them; the validation part where there is one.
        images: number of images, drawn by `seed` where there are more, in the source's order. None: all.
        encoder: timm name or options of the network, for weights files that do not name it.
        batch_size, workers, device: how they are computed; the numbers do not depend on it.
        progress: called with what is analysed, the number of images done, and the number of all images.

    Raises:
        LaminaError: where there is no model, or as `load_encoder` and `open_source`.
    """
    named = models if isinstance(models, Mapping) else short_names([str(model) for model in models])
    if not named:
        raise LaminaError("name at least one model")
    source = subsample(open_source(data, held_out(data)), images, seed)
    place = choose_device(device)
    opened = {}
    for name, spec in named.items():
        backbone = load_encoder(spec, encoder=encoder, device=place)
        reading = backbone.origin.recipe.data if backbone.origin is not None else None
        size, channels = backbone.image_size, backbone.encoder.in_chans
        after_batch = None if progress is None else partial(progress, f"{name}: images")
        batches = Images(source, size, channels, batch_size, workers, reading, place, after_batch)
        opened[name] = ModelOnImages(backbone, batches)
    return opened


def subsample(source: Source, n: int | None, seed: int = 0) -> Source:
    """`n` images of a source, drawn by `seed` without replacement, in its order; all where it has no more."""
    if n is None or n >= len(source):
        return source
    if n < 1:
        raise LaminaError(f"{n} images were requested; give 1 or more")
    generator = torch.Generator().manual_seed(seed_for(seed))
    drawn = torch.randperm(len(source), generator=generator)[:n]
    return Subset(source, sorted(drawn.tolist()))
