"""An analysis on disk: its numbers as JSON, its picture as PNG and SVG with the command under it."""

from __future__ import annotations

import hashlib
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lamina.core.files import replacing
from lamina.core.plotting import thin_labels
from lamina.core.records import write_json
from lamina.core.text import NO_VALUE, printable


@dataclass(frozen=True)
class Result:
    """What every analysis returns: a dataclass of numbers that derives from this one."""

    def to_json(self) -> dict[str, Any]:
        """All fields, in plain lists and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """The main numbers as a table of text, and remarks below it: what the terminal and the report show."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], *notes: str) -> Summary:
        """From one or more rows of cells by the names of their columns, which are the same in all rows."""
        return cls(tuple(rows[0]), tuple(tuple(row.values()) for row in rows), notes)


def cell(value: float | None, layout: str, scale: float = 1.0, unit: str = "") -> str:
    """A number in a cell of a summary: `scale` times the value in the format `layout`; a dash for None."""
    return NO_VALUE if value is None else f"{scale * value:{layout}}{unit}"


@dataclass(frozen=True)
class AnalysisFiles:
    """Where an analysis was written."""

    json: Path
    png: Path
    svg: Path


def write_analysis(
    name: str,
    result: Result,
    figure: Figure,
    summary: Summary,
    out: Path,
    about: Mapping[str, Any],
    command: str = "",
) -> AnalysisFiles:
    """Write `NAME.json`, `NAME.png` and `NAME.svg` into `out`.

    Args:
        about: models, data and settings, put in front of the numbers.
        command: how it was made; shown under the picture.

    Raises:
        OSError: where they cannot be written.
    """
    files = AnalysisFiles(*(out / f"{name}.{suffix}" for suffix in ("json", "png", "svg")))
    table = {"header": summary.header, "rows": summary.rows, "notes": summary.notes}
    head = {"analysis": name, "command": command, "lamina": version("lamina"), **about}
    content = {**head, "summary": table, "result": _plain(result.to_json())}
    save_figure(figure, (files.png, files.svg), command)
    svg = hashlib.sha256(files.svg.read_bytes()).hexdigest()
    write_json(files.json, {**content, "svg_sha256": svg})
    return files


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null in their place."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_figure(figure: Figure, files: Sequence[Path], command: str = "") -> None:
    """Save a figure in the formats of the files' suffixes, the command in small type under it."""
    with warnings.catch_warnings():
        # The font draws an empty box for a letter that it lacks; a warning for each would be too many.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        thin_labels(figure)
        for legend in figure.legends:  # their own anchor is the page's edge, which moves once it is cropped
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
        if command:
            _write_below(figure, printable(command))
        for place in files:
            with replacing(place) as file:
                kind = place.suffix[1:]
                about = {"Date": None} if kind == "svg" else None  # the same figure, the same file
                figure.savefig(
                    file, format=kind, dpi=160, metadata=about, bbox_inches="tight", pad_inches=0.1
                )


def _write_below(figure: Figure, command: str) -> None:
    lines = textwrap.fill(command, int(figure.get_figwidth() * 16), break_on_hyphens=False)
    look: dict[str, Any] = {"fontsize": 6, "family": "monospace", "color": "0.35", "parse_math": False}
    figure.text(0.5, -0.01, lines, ha="center", va="top", **look)
