"""The files that a run could not read: kept in the run folder by name and reason, for the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.core.records import read_json, write_json
from lamina.report.notes import LeftOut

SKIPPED_FILE = "skipped.json"
MOST_NAMES = 1000


@dataclass(frozen=True, order=True)
class SkippedFile:
    """One file that was skipped, and why; counted once however many epochs met it."""

    reason: str
    name: str


def read_skipped(run: Path, notes: list[str]) -> list[SkippedFile]:
    """The list that `write_skipped` kept; empty where there is none."""
    with LeftOut(SKIPPED_FILE, notes):
        content = read_json(run / SKIPPED_FILE)
        rows = content["files"] if isinstance(content, dict) else content  # a list, before lamina 0.2
        return [SkippedFile(str(row["reason"]), str(row["name"])) for row in rows]
    return []


def write_skipped(run: Path, files: Iterable[SkippedFile]) -> None:
    """Keep at most `MOST_NAMES` skipped files in the run folder, sorted by reason and name."""
    rows = [{"reason": f.reason, "name": f.name} for f in sorted(set(files))[:MOST_NAMES]]
    write_json(run / SKIPPED_FILE, {"files": rows})


def by_reason(files: Sequence[SkippedFile]) -> list[tuple[str, list[str]]]:
    """Names grouped by reason, the most frequent reason first."""
    groups: dict[str, list[str]] = {}
    for file in sorted(set(files)):
        groups.setdefault(file.reason, []).append(file.name)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
