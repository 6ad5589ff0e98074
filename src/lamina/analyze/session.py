"""An analysis from what models are called to the files it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.analyze.models import Images, Subject, open_subjects
from lamina.analyze.options import Looking
from lamina.analyze.output import Result, Summary, write_analysis
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.runs.model_spec import parse_model, short_names
from lamina.runs.run import Run


class AnalysisTask:
    """One call of a verb: its models by short names, its images, and where it writes; checked before work."""

    def __init__(self, name: str, models: Sequence[str], looking: Looking, **settings: Any) -> None:
        if not models:
            raise LaminaError("name at least one model")
        self.name, self.looking, self.settings = name, looking, settings
        self.named = short_names(list(models))
        self.started = time.perf_counter()
        self.run = _single_run(list(models))
        if looking.out is None and self.run is None:
            whose = f"{models[0]} is no run, and so has" if len(models) == 1 else "several models have"
            raise LaminaError(f"{whose} no folder of its own for analyses; give --out FOLDER")
        self.out = looking.out if looking.out is not None else self.run.analyses  # type: ignore[union-attr]
        _check_folder(self.out / f"{name}.json")
        self._looked_at: list[Images] = []

    @property
    def data(self) -> str:
        """The images' name: as given, or those of the first run."""
        if self.looking.data is not None:
            return self.looking.data
        for spec in self.named.values():
            run = run_of(parse_model(spec).name)
            if run is not None:
                return run.source()
        raise LaminaError("which images? give --data (a run has its own)")

    def subjects(self, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Subject]:
        """The models opened, each with its images; `progress` as in `open_subjects`."""
        look = self.looking
        subjects = open_subjects(
            self.named,
            self.data,
            images=look.images,
            encoder=look.network,
            batch_size=look.batch_size,
            workers=look.workers,
            device=look.device,
            seed=look.seed,
            progress=progress,
        )
        self._looked_at = [s.batches for s in subjects.values() if isinstance(s.batches, Images)]
        return subjects

    def noted(self, told: Summary) -> Summary:
        """The summary, with what is to be said of the images that were looked at."""
        notes = dict.fromkeys(note for images in self._looked_at for note in images.notes())
        return replace(told, notes=(*told.notes, *notes))

    def write(self, result: Result, told: Summary, command: str) -> tuple[Path, ...]:
        """Write JSON, PNG and SVG; returns their paths."""
        about: dict[str, Any] = {
            "models": self.named,
            "settings": {**self.settings, "seed": self.looking.seed},
        }
        if self.name != "layers":
            about |= {"data": self.data, "images": self.looking.images}
        about["seconds"] = round(time.perf_counter() - self.started, 1)
        files = write_analysis(self.name, result, told, self.out, about, command)
        return (files.json, files.png, files.svg)


def run_of(spec: str) -> Run | None:
    """The run that a model is, or is a step of."""
    return parse_model(spec).run


def _single_run(models: list[str]) -> Run | None:
    return run_of(models[0]) if len(models) == 1 else None


def _check_folder(file: Path) -> None:
    """As `check_writable`, but a refusal after it leaves nothing behind: folders are made with the result."""
    absent = [folder for folder in file.parents if not folder.exists()]
    try:
        check_writable(file)
    finally:
        for folder in absent:
            with suppress(OSError):
                folder.rmdir()
