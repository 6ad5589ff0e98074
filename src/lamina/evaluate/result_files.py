"""The files that results of a run are kept in: one for each protocol, data, settings, seed and step."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lamina.records import read_object


def file_name(text: str, most: int = 80) -> str:
    """What something is called, as part of a file's name; what is longer than `most` ends in a digest."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-.") or "data"
    if len(name) <= most:
        return name
    return f"{name[-most + 20 :]}-{_digest(text)}"


def result_file(
    results: Path, protocol: str, data: str, way: str, seed: int, earlier_step: int | None = None
) -> Path:
    """PROTOCOL-DATA-WAY-seedS.json in the folder `results`, with @STEP for a step that is not the newest.

    Other data or settings have another file: where their names differ in punctuation alone, so that the file
    is taken, a digest is added.

    Args:
        results: folder of the run.
        protocol, data, seed: of the result.
        way: the settings that differ from the usual ones, as text; "" for none.
        earlier_step: the step of the run that was evaluated, where it is not the newest.
    """
    step = "" if earlier_step is None else f"@{earlier_step}"
    called = file_name(data) + (f"-{file_name(way)}" if way else "")
    file = results / f"{protocol}-{called}-seed{seed}{step}.json"
    if _is_of(file, data, way):
        return file
    return results / f"{protocol}-{called}-{_digest(f'{data}|{way}')}-seed{seed}{step}.json"


def _is_of(file: Path, data: str, way: str) -> bool:
    """Whether the file is free for these data and settings: not there, of the same, or damaged."""
    try:
        content = read_object(file)
        return bool((content["data"], content.get("way", "")) == (data, way))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
