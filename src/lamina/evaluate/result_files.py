"""The files that results of a run are kept in: one for each protocol, data, settings, seed and step."""

from __future__ import annotations

import re
from pathlib import Path

from lamina.core.records import read_object
from lamina.data.digest import short_digest


def file_name(text: str, most: int = 80) -> str:
    """What something is called, as part of a file's name; what is longer than `most` ends in a digest."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-.") or "data"
    if len(name) <= most:
        return name
    return f"{name[-most + 20 :]}-{short_digest(text)}"


def result_file(
    results: Path,
    protocol: str,
    data: str,
    variant: str,
    seed: int,
    earlier_step: int | None = None,
    images: str = "",
) -> Path:
    """PROTOCOL-DATA-VARIANT-seedS.json in the folder `results`, with @STEP for a step that is not the newest.

    Other data or settings have another file: where the file is taken, since their names differ in punctuation
    alone or one name (a relative path) stands for other images, a digest is added.

    Args:
        results: folder of the run.
        protocol, data, seed: of the result.
        variant: the settings that differ from the usual ones, as text; "" for none.
        earlier_step: the step of the run that was evaluated, where it is not the newest.
        images: `images_digest` of the data; "" where it is not known.
    """
    step = "" if earlier_step is None else f"@{earlier_step}"
    called = file_name(data) + (f"-{file_name(variant)}" if variant else "")
    file = results / f"{protocol}-{called}-seed{seed}{step}.json"
    texts = (f"{data}|{variant}", f"{data}|{variant}|{images}")
    files = (file, *(results / f"{protocol}-{called}-{short_digest(t)}-seed{seed}{step}.json" for t in texts))
    return next((each for each in files if _is_of(each, data, variant, images)), files[-1])


def _is_of(file: Path, data: str, variant: str, images: str) -> bool:
    """Whether the file is free for these data and settings: not there, of the same, or damaged. A result of
    an earlier version does not say its images; it counts as one of the same."""
    try:
        content = read_object(file)
        same = images == "" or content.get("images", "") in ("", images)
        return bool(
            same and (content["data"], content.get("variant", content.get("way", ""))) == (data, variant)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True
