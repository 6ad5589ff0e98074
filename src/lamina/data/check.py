"""`lamina data check`: read every image once, and say what there is and what cannot be read."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from lamina.core.batch import Remark
from lamina.core.errors import LaminaError
from lamina.core.text import counted, counted_each, printable
from lamina.data.decode.notes import remark_lines, remarks_on
from lamina.data.decode.unreadable import Unreadable
from lamina.data.loading.dataloader import in_order
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import Source

Progress = Callable[[int, int, float], None]


class BadFile(NamedTuple):
    """A file that cannot be read; `name` is safe to print."""

    name: str
    reason: str
    detail: str


@dataclass(frozen=True)
class CheckResult:
    """What a source holds. Sizes are (width, height) in pixels, as stored in the training's orientation."""

    n_files: int
    n_bytes: int
    formats: dict[str, int]
    """Files of each format and mode, e.g. "JPEG RGB"."""
    pixels: dict[str, int]
    """Files of each pixel type and number of channels, e.g. "uint8 x 3"."""
    smallest: tuple[int, int] | None
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    turned: int
    """Files whose EXIF tag says that they are to be turned."""
    animated: int
    """Files of several frames or pages, of which the first is taken."""
    notes: tuple[str, ...]
    """What is worth knowing of files that could be read, a line for each kind with their number; what was
    found beside the images, and which parts there are."""
    classes: dict[str, int]
    bad: tuple[BadFile, ...]
    n_training: int
    """Files that pre-training would see: the training part where there is one, else all."""
    n_training_bad: int
    limit: int
    """Bad files among them with which a training run still goes on."""
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of files with the same bytes, where that was asked for."""
    images_per_second: float
    """Decoding only, by the workers that were used."""
    no_classes: str = ""
    """Why there are no classes, where there are none."""

    @property
    def ok(self) -> bool:
        """Whether a training run would not stop because of bad files."""
        return self.n_training_bad <= self.limit and self.n_training_bad < self.n_training

    @property
    def reasons(self) -> dict[str, int]:
        """How many files cannot be read for each reason, most frequent first."""
        return dict(Counter(file.reason for file in self.bad).most_common())

    def facts(self) -> list[tuple[str, str]]:
        """(what, value) pairs for a table."""
        rows = [
            ("files", f"{self.n_files}, {self.n_bytes / 1e6:.1f} MB"),
            ("formats", counted_each(self.formats) or "none"),
        ]
        rows += [("pixels", counted_each(self.pixels) or "none")]
        if self.smallest and self.median and self.largest:
            sizes = (self.smallest, self.median, self.largest)
            rows += [("size", "smallest {}, median {}, largest {}".format(*(f"{w} x {h}" for w, h in sizes)))]
        optional = [
            ("classes", _classes(self.classes) or (self.no_classes and f"none: {self.no_classes}")),
            ("turned by EXIF", str(self.turned or "")),
            *(("note", line) for line in self.notes),
            ("same content", _same(self.duplicates)),
        ]
        rows += [row for row in optional if row[1]]
        rows += [("speed", f"{self.images_per_second:.0f} images/s decoded")]
        bad = f"{len(self.bad)} of {self.n_files}"
        if self.n_training != self.n_files:
            bad += f", {self.n_training_bad} of them in the training part of {self.n_training}"
        return [*rows, ("unreadable", f"{bad}; a run stops at more than {self.limit}")]

    def lines(self, most: int = 50) -> list[str]:
        """The whole result as plain lines; at most `most` bad files and `most` groups of equal files are
        named."""
        found = [f"{what}: {value}" for what, value in self.facts()]
        found += [f"  same content: {' = '.join(group)}" for group in self.duplicates[:most]]
        if len(self.duplicates) > most:
            found.append(f"  ... and {len(self.duplicates) - most} more groups (--json FILE has all)")
        found += [f"  {n} x {reason}" for reason, n in self.reasons.items()]
        found += [
            f"    {name}: {reason}" + f" ({detail})" * bool(detail)
            for name, reason, detail in self.bad[:most]
        ]
        return found + [f"    ... and {len(self.bad) - most} more"] * (len(self.bad) > most)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self) | {
            "bad": [file._asdict() for file in self.bad],
            "ok": self.ok,
            "reasons": self.reasons,
        }


def _same(groups: Sequence[Sequence[str]]) -> str:
    if not groups:
        return ""
    more = sum(len(group) - 1 for group in groups)
    same, files = counted(len(groups), "group"), counted(more, "file")
    return f"{same} of equal files, {files} more than there are contents"


def _of_each_class(source: Source) -> dict[str, int]:
    """How many images have each class."""
    if source.multi_labels is None:
        counts = Counter(source.labels or ())
    else:
        counts = Counter(dict(enumerate(source.multi_labels.sum(axis=0).tolist())))
    return {printable(name): counts[i] for i, name in enumerate(source.class_names)}


def _classes(classes: dict[str, int]) -> str:
    if not classes:
        return ""
    return f"{len(classes)}, {min(classes.values())} to {max(classes.values())} files each"


def check(
    source: Source,
    options: DataOptions | None = None,
    in_chans: int | None = None,
    duplicates: bool = False,
    training: Source | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Decode every image of `source` as a training run with `options` would.

    Args:
        in_chans: also report files whose channels do not fit an encoder of so many.
        duplicates: also compare contents (SHA-256 of the file's bytes).
        training: the part of the source that pre-training sees, whose bad files decide; by default all.
        progress: called with the number of files that are done, the number of all, and 0 (the share of time
            spent waiting).
    """
    options = options or DataOptions()
    start = time.perf_counter()
    seen = []
    for facts in _inspect_all(source, options.decoding(in_chans), options, duplicates):
        seen += facts
        if progress is not None:
            progress(len(seen), len(source), 0.0)
    seconds = time.perf_counter() - start
    good = [fact for fact in seen if fact.bad is None]
    n_training = len(source) if training is None else len(training)
    sizes = sorted((fact.size for fact in good), key=math.prod)
    return CheckResult(
        n_files=len(seen),
        n_bytes=sum(fact.n_bytes for fact in seen),
        formats=_by_count(fact.format for fact in good),
        pixels=_by_count(fact.pixels for fact in good),
        smallest=sizes[0] if sizes else None,
        median=sizes[len(sizes) // 2] if sizes else None,
        largest=sizes[-1] if sizes else None,
        turned=sum(fact.turned for fact in good),
        animated=sum(fact.animated for fact in good),
        notes=_notes(good, source, training),
        classes=_of_each_class(source),
        bad=tuple(fact.bad for fact in seen if fact.bad is not None),
        n_training=n_training,
        n_training_bad=_count_bad(seen, source, training),
        limit=options.bad_files_limit(n_training),
        duplicates=_groups(seen, source),
        images_per_second=len(seen) / max(seconds, 1e-9),
        no_classes=source.no_labels,
    )


class _Fact(NamedTuple):
    n_bytes: int = 0
    digest: bytes = b""
    bad: BadFile | None = None
    format: str = ""
    pixels: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    animated: bool = False
    remarks: tuple[Remark, ...] = ()


class _Inspector(Dataset[list[_Fact]]):
    """Indices to facts, in a worker."""

    def __init__(self, source: Source, how: Decoding, digests: bool) -> None:
        self.source, self.how, self.digests = source, how, digests

    def __getitems__(self, indices: Sequence[int]) -> list[_Fact] | LaminaError:
        try:
            self.source.read_ahead([*indices, *indices], self.how)  # for the pixels, and for the file
            return [self._stored(i, self._fact(i)) for i in indices]
        except LaminaError as error:  # raised in a worker, it would become a traceback in text
            return error

    def _fact(self, i: int) -> _Fact:
        try:
            found = self.source.inspect(i, replace(self.how, in_chans=None))
            if not _fits(len(found.image), self.how.in_chans):
                self.source.read(i, self.how)  # raises where the channels do not fit
        except Unreadable as error:
            return self._bad(i, error)
        channels, height, width = found.image.shape
        return _Fact(
            n_bytes=found.image.nbytes,
            format=f"{found.format} {found.mode}",
            pixels=f"{str(found.image.dtype).removeprefix('torch.')} x {channels}",
            size=(width, height),
            turned=found.orientation != 1,
            animated=found.animated,
            remarks=tuple(remarks_on(i, self.source.name(i), found.notes)),
        )

    def _stored(self, i: int, fact: _Fact) -> _Fact:
        """With the number of bytes of the image's file, where it has one, and, if wanted, their SHA-256."""
        if fact.bad is not None:
            return fact
        try:
            file = self.source.open(i)
            if file is None:
                return fact
            with file:
                digest = hashlib.file_digest(file, "sha256").digest() if self.digests else b""
                return fact._replace(n_bytes=file.seek(0, os.SEEK_END), digest=digest)
        except Unreadable as error:
            return self._bad(i, error)

    def _bad(self, i: int, error: Unreadable) -> _Fact:
        return _Fact(bad=BadFile(printable(self.source.name(i)), str(error.reason), printable(error.detail)))


def _fits(channels: int, wanted: int | None) -> bool:
    """Whether no second look is needed: the same channels, or grey for colour or the other way round."""
    return wanted in (None, channels) or {channels, wanted} == {1, 3}


def _inspect_all(source: Source, how: Decoding, options: DataOptions, digests: bool) -> Iterable[list[_Fact]]:
    chunks = [range(i, min(i + 32, len(source))) for i in range(0, len(source), 32)]
    workers = options.workers if len(source) > 64 else 0
    return in_order(_Inspector(source, how, digests), chunks, workers, options.worker_timeout_seconds)


def _by_count(names: Iterator[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _notes(good: Sequence[_Fact], source: Source, training: Source | None) -> tuple[str, ...]:
    """Lines on the images that could be read, and the notes of the source and of its training part."""
    lines = remark_lines(remark for fact in good for remark in fact.remarks)
    return tuple(dict.fromkeys((*lines, *source.notes, *(() if training is None else training.notes))))


def _count_bad(seen: Sequence[_Fact], source: Source, training: Source | None) -> int:
    """How many images of the training part cannot be read; of all where there is none."""
    bad = [source.name(i) for i, fact in enumerate(seen) if fact.bad is not None]
    if training is None or not bad:
        return len(bad)
    names = set(bad)
    return sum(training.name(i) in names for i in range(len(training)))


def _groups(seen: Sequence[_Fact], source: Source) -> tuple[tuple[str, ...], ...]:
    found: dict[bytes, list[str]] = defaultdict(list)
    for i, fact in enumerate(seen):
        if fact.digest:
            found[fact.digest].append(printable(source.name(i)))
    return tuple(tuple(names) for names in found.values() if len(names) > 1)
