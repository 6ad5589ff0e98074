"""The files a run keeps about itself: metrics.jsonl, train.log, and TensorBoard events on request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.files import make_folder, sync
from lamina.core.plain_files import check_plain
from lamina.train.rows import cut_back, row_text

METRICS, LOG = "metrics.jsonl", "train.log"


class LogFiles:
    """metrics.jsonl (one JSON object per row) and train.log, appended to and flushed line by line.

    Opened at `step`, it first drops the rows beyond that step, and a last line that a crash cut short, so
    that a resumed run ends with the file of an uninterrupted one (clock fields aside). Damaged rows are
    dropped too, which train.log says.

    Args:
        folder: of the run.
        step: at which the run starts or goes on.
        known: how many rows there were at that step, where a checkpoint says so.
    """

    def __init__(self, folder: Path, step: int, known: int | None = None) -> None:
        make_folder(folder)
        self._paths = folder / METRICS, folder / LOG
        with suppress(FileNotFoundError):  # in a stranger's folder it may be a pipe, or a link to elsewhere
            check_plain(self._paths[1])
        kept, damaged = cut_back(self._paths[0], step)
        self.rows = kept
        """How many rows metrics.jsonl has."""
        self._metrics, self._log = (path.open("a", encoding="utf-8", newline="\n") for path in self._paths)
        sync(folder)
        self.losses = _losses(kept, damaged, known)
        """A line where rows were lost."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._write(0, row_text(finite(row)))
        self.rows += 1

    def say(self, line: str) -> None:
        """Append a line to train.log, with the time before it."""
        self._write(1, f"{datetime.now().isoformat(timespec='seconds')} {line}")

    def _write(self, which: int, line: str) -> None:
        file = (self._metrics, self._log)[which]
        try:
            file.write(line + "\n")
            file.flush()
        except OSError as error:
            raise LaminaError(
                f"{self._paths[which]} cannot be written ({error.strerror}); free some space"
            ) from error

    def sync(self) -> None:
        """Put the rows on the disk before a checkpoint that counts on them."""
        sync(self._paths[0])

    def close(self) -> None:
        """Close both files; each line was flushed as it was written, and a full disk was reported then."""
        for file in (self._metrics, self._log):
            with suppress(OSError):
                file.close()


def finite(value: Any) -> Any:
    """The same value with None for each number that JSON does not know (NaN and infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def _losses(kept: int, damaged: int, known: int | None) -> str | None:
    if damaged:
        return f"{METRICS}: {damaged} damaged rows were dropped, {kept} are kept"
    if known is not None and kept < known:
        return f"{METRICS}: {known - kept} of {known} rows are gone, {kept} are kept"
    return None


class TensorBoard:
    """The numbers of each row as TensorBoard scalars, in `folder/tensorboard`."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise LaminaError(
                "TensorBoard is not installed; pip install 'lamina[track]', or leave tensorboard off"
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def row(self, row: Mapping[str, Any]) -> None:
        """Write a row; a list becomes one curve per element."""
        for name, value in row.items():
            values = (
                {f"{name}/{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value}
            )
            for tag, number in values.items():
                if isinstance(number, int | float) and tag not in ("step", "time"):
                    self._writer.add_scalar(tag, number, row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
