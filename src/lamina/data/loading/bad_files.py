"""The budget of files that cannot be read: how many, why, and when to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from lamina.core.batch import Fault
from lamina.core.text import counted_each, printable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import DataOptions
from lamina.data.sources import Source


def fault_of(source: Source, epoch: int, index: int, error: Unreadable) -> Fault:
    """The record of an image that could not be read."""
    return Fault(epoch, index, str(error.reason), printable(source.name(index)))


def unread_notes(faults: Sequence[Fault], of: int, what: str = "images") -> tuple[str, ...]:
    """A sentence on images that could not be read, by reason, with the name of the first; none where all
    could."""
    if not faults:
        return ()
    reasons = counted_each(Counter(fault.reason for fault in faults))
    first = f"; the first is {faults[0].name}" if faults[0].name else ""
    return (f"{len(faults)} of {of} {what} could not be read: {reasons}{first}",)


_RAISE = {
    Reason.TOO_LARGE: "raise data.max_decode_mb (or data.max_pixels, where that is the lower one)",
    Reason.TOO_SLOW: "raise data.max_decode_seconds",
}
"""What lets files be read that are over a limit."""


class FaultBudget:
    """Counts the distinct bad files of a source, in the order they were met.

    It lives in rank 0's training process and is given the faults of the batches that all ranks trained on,
    so neither workers nor prefetching change it. A run that goes on gives back the `rows` it saved by
    `restore`; without that, it meets the files again within an epoch. `content_counts` says that a training
    may not go on with other files of the same names.
    """

    def __init__(self, source: Source, options: DataOptions) -> None:
        self.source = source
        self.limit = options.bad_files_limit(len(source))
        self._how = options.decoding(None)
        self.content_counts = False
        self._first: dict[int, Fault] = {}

    def __len__(self) -> int:
        return len(self._first)

    def add(self, faults: Iterable[Fault]) -> str | None:
        """Count faults; returns a sentence once more than `limit` different files could not be read."""
        for fault in faults:
            self._first.setdefault(fault.index, fault)
        return self._sentence() if len(self) > self.limit else None

    def by_reason(self) -> dict[str, int]:
        """How many files for each reason, most frequent first."""
        return dict(Counter(fault.reason for fault in self._first.values()).most_common())

    def rows(self) -> list[dict[str, str | int]]:
        """What is known, for JSON and the report: index, name (safe to print), reason, epoch."""
        return [
            {
                "index": f.index,
                "name": printable(self.source.name(f.index)),
                "reason": f.reason,
                "epoch": f.epoch,
            }
            for f in self._first.values()
        ]

    def restore(self, rows: Iterable[dict[str, str | int]]) -> None:
        """Take back saved `rows`, but for files that can be read by now; nothing is raised."""
        for row in rows:
            fault = Fault(int(row["epoch"]), int(row["index"]), str(row["reason"]))
            if not self._readable(fault.index):
                self._first.setdefault(fault.index, fault)

    def _readable(self, index: int) -> bool:
        try:
            self.source.read(index, self._how)
        except Unreadable:
            return False
        return True

    def _sentence(self) -> str:
        reasons = counted_each(self.by_reason())
        last = printable(self.source.name(next(reversed(self._first))))
        ways = [how for reason, how in _RAISE.items() if reason in self.by_reason()]
        ways.append("raise data.bad_files_max_share")
        anew = "if you mend or delete files, start again with --overwrite"
        if not self.content_counts:
            ways.insert(0, "put readable ones under the same names")
            anew = "if you delete files, start a new run (--init RUN takes these weights)"
        how = " or ".join(filter(None, (", ".join(ways[:-1]), ways[-1])))
        return (
            f"{len(self)} of {len(self.source)} files cannot be read ({reasons}; the last one: {last}), the "
            f"limit is {self.limit}; list them with `lamina data check`, {how}, and go on with "
            f"--resume; {anew}"
        )
