"""What `lamina analyze` found, as the report shows it: a picture, the main numbers, the command."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lamina.files import write_atomically
from lamina.plain_files import DamagedFile, read_plain
from lamina.records import read_object
from lamina.report.text import moment

TITLES = {
    "layers": "Which layers the decoder was given",
    "depth": "Where the useful information is",
    "frequency": "Spatial frequencies",
    "reconstruction": "What reconstructions leave out",
    "hessian": "Sharpness of the loss",
    "attention": "Attention distance and entropy",
    "similarity": "Similarity of layers",
    "rank": "Rank of the features",
    "patches": "Patches",
    "retrieval": "Retrieval",
}
"""In the order in which they are shown."""

MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class ShownAnalysis:
    """One analysis: its picture as a data URI (none where the file is missing), and its table."""

    name: str
    title: str
    picture: str | None
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    command: str


def read_analyses(folder: Path, notes: list[str]) -> list[ShownAnalysis]:
    """All analyses that were written into a folder; what is broken is left out and noted."""
    found = []
    for name, title in TITLES.items():
        file = folder / f"{name}.json"
        try:
            content = read_object(file)
            told = content["summary"]
            header, rows, remarks = (_texts(told, key) for key in ("header", "rows", "notes"))
            table = [[str(cell) for cell in row] for row in rows]
            command = str(content.get("command") or "")
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            notes.append(f"the analysis in {file.name} was left out: {error.reason}")
            continue
        except (ValueError, TypeError, KeyError):
            notes.append(f"the analysis in {file.name} could not be read and was left out")
            continue
        picture = _picture(folder / f"{name}.svg", content.get("svg_sha256"), notes)
        found.append(ShownAnalysis(name, title, picture, header, table, remarks, command))
    return found


def write_analyses_page(folder: Path) -> Path:
    """`index.html` of a folder of analyses, of several models side by side; complete in itself."""
    from lamina.report.page import templates

    notes: list[str] = []
    analyses = read_analyses(folder, notes)
    html = (
        templates()
        .get_template("analyses.html")
        .render(
            analyses=analyses,
            notes=notes,
            page={"version": metadata.version("lamina"), "written": moment(time.time())},
        )
    )
    page = folder / "index.html"
    write_atomically(page, html.encode("utf-8", "backslashreplace"))
    return page


def _texts(told: Mapping[str, Any], key: str) -> list[Any]:
    values = told[key]
    if not isinstance(values, list):
        raise TypeError(key)
    return values


def _picture(file: Path, sha256: str | None, notes: list[str]) -> str | None:
    """An SVG in an <img> runs no script and loads nothing."""
    try:
        content = read_plain(file, MOST_BYTES)
    except FileNotFoundError:
        notes.append(f"{file.name} is missing")
        return None
    except DamagedFile as error:
        notes.append(f"{file.name} was left out: {error.reason}")
        return None
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        notes.append(f"{file.name} was left out: it is not the picture of {file.stem}.json")
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()
