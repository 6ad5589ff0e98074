"""Read a run folder for its report. What is missing, incomplete or damaged is left out, with a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lamina.core.config import current_names, flatten
from lamina.core.errors import LaminaError
from lamina.core.plain_files import read_text
from lamina.core.records import MOST_YAML_BYTES, parse_yaml, read_json
from lamina.evaluate.score import Score
from lamina.recipes.recipe import Recipe
from lamina.report.analyses import ShownAnalysis, read_analyses
from lamina.report.bad_files import SkippedFile, read_skipped
from lamina.report.notes import LeftOut
from lamina.report.picture_store import Album, read_album
from lamina.report.shown_scores import read_score
from lamina.runs.run import Run
from lamina.train import checkpoint
from lamina.train.rows import read_rows


@dataclass(frozen=True)
class RunData:
    """All data of one run; every part may be empty. `notes` lists what could not be read."""

    name: str
    recipe_text: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    updated: float | None = None
    results: Sequence[Score] = ()
    """Of probes of frozen features, which have rows."""
    scores: Sequence[Score] = ()
    """Of all other protocols."""
    album: Album = field(default_factory=Album)
    analyses: Sequence[ShownAnalysis] = ()
    skipped: Sequence[SkippedFile] = ()
    notes: Sequence[str] = ()

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """The steps and values of one logged number; rows without it are left out, null is not a number."""
        rows = [row for row in self.metrics if key in row]
        return [float(row["step"]) for row in rows], [_float(row[key]) for row in rows]

    def curves(self, key: str) -> tuple[list[float], list[list[float]]]:
        """The steps and, for each position of a logged list (such as a tap's weight), its values."""
        rows = [row for row in self.metrics if isinstance(row.get(key), list)]
        width = len(rows[-1][key]) if rows else 0
        rows = [row for row in rows if len(row[key]) == width]
        values = [[_float(row[key][i]) for row in rows] for i in range(width)]
        return [float(row["step"]) for row in rows], values

    def setting(self, name: str) -> Any:
        """A field of the recipe by its dotted name; None where it is not there."""
        return self.recipe.get(name)


def read_run(path: Path) -> RunData:
    """Read all that a run folder holds, whether the run is finished or not."""
    run = Run(path)
    notes: list[str] = []
    recipe_text = _text(run.recipe_file, notes)
    contents = [(file, _json(file, notes)) for file in _files(run.results, "*.json")]
    read = [(file, read_score(content, file.stem, notes)) for file, content in contents]
    found = [(file, score) for file, score in read if score is not None]
    return RunData(
        name=path.resolve().name,
        recipe_text=recipe_text,
        recipe=_recipe(recipe_text, notes),
        environment=_flat(_json(run.environment_file, notes)),
        metrics=_rows(run.metrics_file, notes),
        updated=run.metrics_file.stat().st_mtime if run.metrics_file.is_file() else None,
        results=_of_images(_newest([(file, score) for file, score in found if score.rows], notes)),
        scores=_of_images([score for _, score in found if not score.rows]),
        album=read_album(run.pictures, notes),
        analyses=read_analyses(run.analyses, notes),
        skipped=read_skipped(path, notes),
        notes=notes,
    )


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Several runs under names that tell them apart: the folder's name, its path where two are alike."""
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    alike = {name for name in names if names.count(name) > 1}
    return [
        replace(run, name=str(path)) if run.name in alike else run
        for run, path in zip(runs, paths, strict=True)
    ]


def _newest(results: Sequence[tuple[Path, Score]], notes: list[str]) -> list[Score]:
    """The newest file of each result; a note on older files of the same."""
    found: dict[tuple[object, ...], tuple[Path, Score]] = {}
    for file, result in sorted(results, key=lambda each: each[0].stat().st_mtime):
        same = (result.protocol, result.data, result.variant, result.seed, result.step, result.images)
        if same in found:
            older = f"results/{found[same][0].name} was left out"
            notes.append(f"{older}: results/{file.name} is of the same settings, and newer")
        found[same] = (file, result)
    return [result for _, result in found.values()]


def _of_images(results: Sequence[Score]) -> list[Score]:
    """The same, with a digest in the data's name where one name (a relative path) stood for several sets of
    images, so that they are not taken for one."""
    sets: dict[tuple[str, str], set[str]] = {}
    for result in results:
        sets.setdefault((result.protocol, result.data), set()).add(result.images)
    return [
        replace(result, data=f"{result.data} (images {result.images or 'unknown'})")
        if len(sets[result.protocol, result.data]) > 1
        else result
        for result in results
    ]


def _flat(content: Any) -> dict[str, Any]:
    return flatten(content) if isinstance(content, Mapping) else {}


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def _text(file: Path, notes: list[str]) -> str:
    with LeftOut(file.name, notes):
        return read_text(file, MOST_YAML_BYTES)
    return ""


def _json(file: Path, notes: list[str]) -> Any:
    with LeftOut(file.name, notes):
        return read_json(file)
    return None


def _recipe(text: str, notes: list[str]) -> dict[str, Any]:
    try:
        content = parse_yaml(text)
    except ValueError as error:
        notes.append(f"recipe.yaml is shown as it stands: {error}")
        return {}
    if not isinstance(content, Mapping):
        return {}
    beside = {name: value for name, value in content.items() if name != "recipe"}
    recipe = content.get("recipe")
    return _flat(beside) | _flat(current_names(recipe, Recipe) if isinstance(recipe, Mapping) else recipe)


def _rows(file: Path, notes: list[str]) -> list[dict[str, Any]]:
    with LeftOut(file.name, notes):
        try:
            rows, damaged = read_rows(file)
        except FileNotFoundError:
            rows, damaged = [], []
        if damaged:
            notes.append(
                f"{len(damaged)} damaged lines of {file.name} were left out, line {damaged[0]} first"
            )
        elif len(rows) < (known := _known_rows(file.parent)):
            notes.append(f"{known - len(rows)} of {known} rows of {file.name} are gone")
        return rows
    return []


def _known_rows(folder: Path) -> int:
    """How many rows there were at the newest checkpoint, by its own account; 0 where it gives none."""
    place = Run(folder).checkpoints
    try:
        state = checkpoint.read_state(place / f"step-{checkpoint.steps(place)[-1]}")
    except (IndexError, OSError, LaminaError):
        return 0
    known = state.get("metrics_rows")
    return known if isinstance(known, int) else 0
