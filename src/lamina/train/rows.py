"""The rows of metrics.jsonl: each a JSON object with the digest of its own line, which shows any damage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lamina.core.errors import LaminaError
from lamina.core.files import replace_text
from lamina.core.plain_files import DamagedFile, open_plain
from lamina.core.records import parse_json

SEAL = "sha256"
"""Last field of a row: the first 16 digits of the SHA-256 of the line without it."""
CLOCK_FIELDS = frozenset({"time", "seconds", "images_per_second", "data_wait", SEAL})
"""What differs from run to run on the same computer: times, and the digest of a row that has them."""
MOST_BYTES = 256 << 20
MOST_ROWS = 1_000_000
MOST_LINE_BYTES = 1 << 20


def row_text(row: Mapping[str, Any]) -> str:
    """The line of a row of finite numbers, without its end."""
    text = json.dumps(row, allow_nan=False)
    return f'{text[:-1]}{", " if row else ""}"{SEAL}": "{_digest(text)}"}}'


def read_rows(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a file, without their digests, and the numbers (from 1) of its damaged lines.

    A last line without an end, which is being written, is neither. Rows of before there were digests are
    taken as they are.

    Raises:
        FileNotFoundError: where there is none.
        LaminaError: where it is no plain file, or has more rows than a run writes.
    """
    rows, damaged = [], []
    with open_plain(file) as stream:
        if os.fstat(stream.fileno()).st_size > MOST_BYTES:
            raise DamagedFile(file, f"it has more than {MOST_BYTES >> 20} MiB")
        for number, (_, row) in enumerate(islice(_rows(stream), MOST_ROWS + 1), 1):
            if number > MOST_ROWS:
                raise DamagedFile(file, f"it has more than {MOST_ROWS} lines")
            if row is None:
                damaged.append(number)
            else:
                rows.append(row)
    return rows, damaged


def whole_rows(file: Path) -> list[dict[str, Any]]:
    """As `read_rows`, of a file that may be missing (no rows); a damaged line is a `LaminaError`."""
    try:
        rows, damaged = read_rows(file)
    except FileNotFoundError:
        return []
    if damaged:
        listed = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        raise LaminaError(
            f"{file} is damaged in line {listed}; restore it from a copy, or delete these lines to go on "
            "without them"
        )
    return rows


def cut_back(file: Path, step: int) -> tuple[int, int]:
    """Keep the whole rows up to `step`, byte for byte; how many these are, and how many damaged ones among
    them were dropped."""
    kept: list[bytes] = []
    damaged = size = 0
    try:
        with open_plain(file, mend="move it away to go on without its rows") as stream:
            for line, row in _rows(stream):
                if row is not None and row["step"] > step:
                    break
                damaged += row is None
                kept += [] if row is None else [line]
            size = stream.seek(0, 2)
    except FileNotFoundError:
        return 0, 0
    if sum(map(len, kept)) < size:
        replace_text(file, b"".join(kept))
    return len(kept), damaged


def _rows(stream: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line that has an end, and its row; None for a damaged one."""
    while line := stream.readline(MOST_LINE_BYTES):
        if line.endswith(b"\n") and line.strip():
            yield line, _row(line)
        elif not line.endswith(b"\n") and stream.read(1):  # no end, but something follows: too long
            raise DamagedFile(Path(stream.name), f"it has a line of more than {MOST_LINE_BYTES >> 10} KiB")


def _row(line: bytes) -> dict[str, Any] | None:
    text = line.rstrip(b"\r\n").decode("utf-8", "replace")
    try:
        row = parse_json(text)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    seal = row.pop(SEAL, None)
    if seal is None:
        return row
    rest = text.removesuffix(f', "{SEAL}": "{seal}"}}') + "}"
    return row if seal == _digest(rest) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
