"""`lamina data pack`: the images of any source in one large file, shrunk to a short side."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.core.new_folder import new_folder
from lamina.core.text import counted, counted_each
from lamina.data.columns import Names
from lamina.data.decode.notes import remark_lines
from lamina.data.open import Spec
from lamina.data.options import DataOptions
from lamina.data.pack.blob import Progress, Written, write_blob
from lamina.data.pack.compare import MOST, Comparison, compare
from lamina.data.pack.encode import Encoder, Format
from lamina.data.pack.files import ABOUT, BLOB, About, Index, View, write_index
from lamina.data.pack.source import PackedSource
from lamina.data.pack.views import open_views

QUALITY = 90


@dataclass(frozen=True)
class PackResult:
    """What was packed. All counts are of images."""

    out: str
    images: int
    parts: Mapping[str, int]
    """Of the training and the held-out part, where there are both."""
    original_bytes: int
    """Of the files that were read; of the pixels where images are no files."""
    packed_bytes: int
    ways: Mapping[str, int]
    """How many were shrunk, and how many were not, and why."""
    left_out: Mapping[str, int]
    """What could not be read, by reason."""
    notes: tuple[str, ...]
    """What is worth knowing of the images, and what was passed over."""
    comparison: Comparison | None
    """Crops of the pack beside those of the originals; None where no image was shrunk."""

    def lines(self) -> list[str]:
        """For people, a line for each fact."""
        parts = ", ".join(f"{part} {n}" for part, n in self.parts.items())
        before, after = self.original_bytes / 1e6, self.packed_bytes / 1e6
        found = [
            f"{self.out}: {counted(self.images, 'image')}{parts and f' ({parts})'}, {after:.1f} MB "
            f"({after / max(before, 1e-9):.0%} of {before:.1f} MB)",
            f"images: {counted_each(self.ways)}",
        ]
        if self.comparison is not None:
            found.append(str(self.comparison))
        if self.left_out:
            n = counted(sum(self.left_out.values()), "image")
            found.append(f"left out: {n} that cannot be read: {counted_each(self.left_out)}")
        return [*found, *(f"note: {note}" for note in self.notes)]


def pack(
    spec: Spec,
    out: Path,
    *,
    side: int = 256,
    format: Format = "jpeg",
    quality: int = QUALITY,
    workers: int = 2,
    progress: Progress | None = None,
) -> PackResult:
    """Write the images of `spec`, of all its parts, as a pack into the folder `out`.

    Args:
        spec: as `open_source` takes it.
        out: the folder, which is not there yet, or is empty.
        side: images with a longer short side are shrunk to it, in px.
        format: jpeg: what is shrunk is stored as JPEG, or as PNG where it has an alpha channel. raw: all
            8-bit images are stored as their pixels.
        quality: of JPEG, 1 to 100.
        workers: processes that read and shrink images; 0: this one does it.
        progress: called with the number of images that are done, that of all, and 0.

    Raises:
        LaminaError: where there is nothing to pack, none of it can be read, or `out` is not free.
        OSError: where the pack cannot be written. Nothing of it stays then.
    """
    views = open_views(spec)
    sources = tuple(views.sources.values())
    encoder = Encoder(sources, views.jobs, side, format, quality, DataOptions().decoding(None))
    with new_folder(out, ABOUT, "pack") as folder:
        try:
            written = write_blob(folder / BLOB, encoder, workers, progress)
        except KeyboardInterrupt as stop:
            stop.add_note("nothing of it is kept: a pack appears when it is complete")
            raise
        about = _about(spec, encoder, written, held_out="val" in views.sources)
        names = Names(views.name(job) for job in written.jobs)
        index = Index(about, written.columns(), names, views.packed(written.jobs))
        write_index(folder, index)
        comparison = _compare(folder, written, encoder)
    return PackResult(
        str(out),
        about.images,
        {split: len(index.views[split].indices) for split in ("train", "val") if split in index.views},
        written.original_bytes,
        about.blob_bytes,
        {str(way): n for way, n in written.ways.most_common()},
        about.left_out,
        (*remark_lines(written.remarks), *views.sources["all"].notes, *_without_labels(index.views)),
        comparison,
    )


def _about(spec: Spec, encoder: Encoder, written: Written, held_out: bool) -> About:
    return About(
        os.fspath(spec) if isinstance(spec, str | os.PathLike) else f"a {type(spec).__name__}",
        encoder.format,
        encoder.side,
        encoder.quality if encoder.format == "jpeg" else None,
        len(written.jobs),
        written.n_bytes,
        written.digest.hexdigest(),
        held_out,
        dict(Counter(fault.reason for fault in written.faults).most_common()),
    )


def _without_labels(views: Mapping[str, View]) -> list[str]:
    """A sentence on the pack, or on each of its parts, that has no labels."""
    parts = {"train": "the training part", "val": "the held-out part"}
    found = {parts[split]: view for split, view in views.items() if split in parts}
    if all(view.unlabelled for view in found.values()):
        found = {"the pack": views["all"]}
    return [
        f"{what} has no labels, which evaluations need{view.no_labels and f': {view.no_labels}'}"
        for what, view in found.items()
        if view.unlabelled
    ]


def _compare(folder: Path, written: Written, encoder: Encoder) -> Comparison | None:
    """Some of the images that were shrunk, evenly spread, beside what they were."""
    n = len(written.shrunk)
    chosen = [written.shrunk[k * n // min(n, MOST)] for k in range(min(n, MOST))]
    if not chosen:
        return None
    packed = PackedSource(str(folder / BLOB), written.columns(), ())
    jobs = [encoder.jobs[written.jobs[i]].tolist() for i in chosen]
    originals = [(encoder.sources[number], i) for number, i in jobs]
    return compare(originals, [(packed, i) for i in chosen], encoder.side, encoder.how)
