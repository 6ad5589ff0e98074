"""One self-contained HTML page for a run, or for several side by side.

The page loads nothing and runs no script: styles, charts (SVG) and pictures (data URIs) are inside, and its
content security policy allows nothing else. Every name passes jinja2's autoescape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.evaluate.compare.table import Comparison
from lamina.report import sections
from lamina.report.analyses import recoloured, write_analyses_page
from lamina.report.bad_files import by_reason
from lamina.report.colours import Colour, run_colours
from lamina.report.format import count, moment, setting, visible
from lamina.report.jinja import write_page
from lamina.report.picture_grid import Pictures, arrange
from lamina.report.read_run import RunData, read_runs
from lamina.report.result_views import result_views
from lamina.runs.run import Run


@dataclass(frozen=True)
class RunView:
    """A run as the templates see it."""

    name: str
    colour: Colour
    facts: Sequence[sections.Fact]
    recipe_text: str
    recipe: Sequence[tuple[str, str]]
    environment: Sequence[tuple[str, str]]


def write_report(runs: Sequence[Path], out: Path, refresh_seconds: int | None = None) -> Path:
    """Write the report of one run, or of several side by side, as one HTML file, and return its path.

    The file is replaced at once, so a reader never sees half a page. What a run does not have yet is left
    out. `refresh_seconds` makes an open tab load the page again by itself, for a run that still trains.
    Raises LaminaError for a folder that is no run, OSError where `out` cannot be written.
    """
    if not runs:
        raise LaminaError("there is no run to report on; name at least one run folder")
    for run in runs:
        if not (Run(run).recipe_file.is_file() or Run(run).metrics_file.is_file()):
            raise LaminaError(
                f"{visible(run)} is not a run: it has no recipe.yaml; give a folder that --out named"
            )
    return write_page(out, "page.html", _page(read_runs(runs), refresh_seconds))


def write_page_of_analyses(folder: Path, run: Run | None) -> Path:
    """Write the page that shows the analyses in `folder`: the report of `run` where it is that run's own
    folder, else a page in the folder."""
    if run is not None and folder == run.analyses:
        return write_report([run.path], run.report_file)
    return write_analyses_page(folder)


def _page(runs: Sequence[RunData], refresh_seconds: int | None) -> dict[str, Any]:
    comparison, differing = len(runs) > 1, sections.differences(runs)
    colours = run_colours([run.name for run in runs])
    page: dict[str, Any] = {
        "title": " and ".join(run.name for run in runs),
        "subtitle": _subtitle(runs),
        "progress": sections.progress(runs[0]),
        "comparison": comparison,
        "refresh_seconds": refresh_seconds,
        "runs": [_run(run, colour) for run, colour in zip(runs, colours, strict=True)],
        "notes": [f"{run.name}: {note}" if comparison else note for run in runs for note in run.notes],
        "training": sections.training_charts(runs),
        "monitored": any(run.curve("rankme")[1] for run in runs),
        "masked": any(run.setting("method") != "supervised" for run in runs),
        "nonfinite": sum(int(_last(run, "nonfinite")) for run in runs),
        "fusions": sections.fusion_views(runs),
        "results": result_views(runs),
        "downstream": Comparison.of({run.name: run.scores for run in runs}),
        "scores": [(run.name, run.scores) for run in runs if run.scores],
        "analyses": [
            (run.name, recoloured(run.analyses, run.name, colour.light))
            for run, colour in zip(runs, colours, strict=True)
            if run.analyses
        ],
        "pictures": arrange(runs),
        "skipped": list(_skipped(runs)),
        "differences": differing,
        "fairness": sections.fairness(differing),
    }
    return page | {"contents": list(_contents(page))}


def _run(run: RunData, colour: Colour) -> RunView:
    return RunView(
        name=run.name,
        colour=colour,
        facts=sections.facts(run),
        recipe_text=run.recipe_text,
        recipe=[(name, setting(value)) for name, value in run.recipe.items()],
        environment=[(name, setting(value)) for name, value in run.environment.items()],
    )


def _subtitle(runs: Sequence[RunData]) -> str:
    logged = [run.updated for run in runs if run.updated is not None and run.metrics]
    return f"last logged {moment(max(logged))}" if logged else "nothing logged yet"


def _last(run: RunData, key: str) -> float:
    value = run.metrics[-1].get(key) if run.metrics else None
    return value if isinstance(value, int | float) and value == value else 0


def _contents(page: dict[str, Any]) -> Iterator[tuple[str, str]]:
    pictures: Pictures = page["pictures"]
    yield "training", "Training"
    for there, anchor, name in (
        (page["fusions"], "fusion", "Fusion weights"),
        (page["results"], "results", "Results"),
        (page["scores"], "downstream", "Downstream"),
        (page["analyses"], "analyses", "Analyses"),
        (pictures.restored, "reconstructions", "Reconstructions" if pictures.filled else "Masked inputs"),
        (pictures.mapped, "features", "Patch features"),
        (pictures.sheets, "neighbours", "Neighbours"),
    ):
        if there:
            yield anchor, name
    yield "skipped", "Skipped files"
    yield "recipe", "Recipe"


def _skipped(runs: Sequence[RunData]) -> Iterator[dict[str, Any]]:
    for run in runs:
        met, groups = int(_last(run, "faults")), by_reason(run.skipped)
        files = sum(len(names) for _, names in groups)
        if not met and not files:
            continue
        parts = [f"{count(files)} file{'s' if files != 1 else ''}"] if files else []
        parts += [f"met {count(met)} time{'s' if met != 1 else ''}"] if met else []
        yield {"name": run.name, "total": ", ".join(parts) + ".", "groups": groups}
