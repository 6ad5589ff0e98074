"""Results of `lamina analyze` as the report shows them: a picture, the main numbers, the command."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.analyze.catalog import ANALYSES
from lamina.core.plain_files import DamagedFile, read_plain
from lamina.core.plotting import HUES, HUES_ON_DARK, hues
from lamina.core.records import read_object
from lamina.report.jinja import write_page
from lamina.report.notes import LeftOut

MOST_BYTES = 8 << 20

_ON_DARK = {
    **dict(zip(HUES, HUES_ON_DARK, strict=True)),
    "#000000": "#e8e7e3",
    "#4d4d4d": "#b4bac2",
    "#595959": "#a0a7b0",
    "#cccccc": "#4a5058",
    "#ebebeb": "#2b3036",
}
_DARK = (
    "@media (prefers-color-scheme: dark) { g[id^=text_], text { fill: #e8e7e3 } "
    '[style*="fill: #ffffff"] { fill: #1a1d21 !important } '
    + " ".join(
        f'[style*="{part}: {light}"] {{ {part}: {dark} !important }}'
        for light, dark in _ON_DARK.items()
        for part in ("fill", "stroke")
    )
    + " }"
)
"""What changes in the pictures of analyses on a dark page: paper, ink, grid and the colours of runs."""


@dataclass(frozen=True)
class ShownAnalysis:
    """One analysis: its picture as SVG (none where the file is missing), and its table."""

    name: str
    title: str
    svg: bytes | None
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    command: str

    @property
    def picture(self) -> str | None:
        """A data URI; an SVG in an <img> runs no script and loads nothing."""
        if self.svg is None:
            return None
        start, end, rest = self.svg.partition(b"<defs>")
        styled = start + f"<style>{_DARK}</style>".encode() + end + rest if end else self.svg
        return "data:image/svg+xml;base64," + base64.b64encode(styled).decode()


def read_analyses(folder: Path, notes: list[str]) -> list[ShownAnalysis]:
    """All analyses that were written into a folder; what is broken is left out and noted."""
    found = []
    for row in ANALYSES:
        file = folder / f"{row.name}.json"
        with LeftOut(f"the analysis in {file.name}", notes):
            content = read_object(file)
            table = content["summary"]
            header, rows, remarks = (_texts(table, key) for key in ("header", "rows", "notes"))
            cells = [[str(cell) for cell in row] for row in rows]
            command = str(content.get("command") or "")
            svg = _picture(folder / f"{row.name}.svg", content.get("svg_sha256"), notes)
            found.append(ShownAnalysis(row.name, row.title, svg, header, cells, remarks, command))
    return found


def write_analyses_page(folder: Path) -> Path:
    """`index.html` of a folder of analyses, of several models side by side; complete in itself."""
    notes: list[str] = []
    analyses = read_analyses(folder, notes)
    return write_page(folder / "index.html", "analyses.html", {"analyses": analyses, "notes": notes})


def _texts(table: Mapping[str, Any], key: str) -> list[Any]:
    values = table[key]
    if not isinstance(values, list):
        raise TypeError(key)
    return values


def recoloured(analyses: Sequence[ShownAnalysis], run: str, colour: str) -> list[ShownAnalysis]:
    """Analyses of one run, drawn alone, in the colour that it has on the page."""
    own = hues([run])[0]
    return [
        replace(each, svg=each.svg and each.svg.replace(own.encode(), colour.encode())) for each in analyses
    ]


def _picture(file: Path, sha256: str | None, notes: list[str]) -> bytes | None:
    with LeftOut(file.name, notes):
        try:
            content = read_plain(file, MOST_BYTES)
        except FileNotFoundError:
            raise DamagedFile(file, "it is missing") from None
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise DamagedFile(file, f"it is not the picture of {file.stem}.json")
        return content
    return None
