"""An analysis from what models are called to the files it writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.analyze.subject import Subject, names_of, open_subjects
from lamina.analyze.written import Result, Summary, write_analysis
from lamina.errors import LaminaError
from lamina.files import check_writable
from lamina.report import write_report
from lamina.report.inside import write_analyses_page
from lamina.runs import Run


@dataclass(frozen=True)
class Looking:
    """What models are looked at with, and where to write."""

    data: str | None = None
    """Images: a folder, a .txt list, a quoted glob, a sample (the held-out part where there is one); by
    default those that the first run was trained on."""
    out: Path | None = None
    """Folder for JSON, PNG and SVG; by default RUN/analyses, for a single run."""
    images: int = 256
    """How many; drawn by the seed where there are more."""
    encoder: str | None = None
    """timm name of the network, for weights files that do not say."""
    batch_size: int = 32
    """Images per forward."""
    workers: int = 0
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    seed: int = 0
    """Of the images that are drawn, and of what an analysis draws itself."""


class AnalysisTask:
    """One call of a verb: its models by short names, its images, and where it writes; checked before work."""

    def __init__(self, name: str, models: Sequence[str], looking: Looking, **settings: Any) -> None:
        if not models:
            raise LaminaError("name at least one model")
        self.name, self.looking, self.settings = name, looking, settings
        self.named = names_of(list(models))
        self.started = time.perf_counter()
        self.run = _single_run(list(models))
        if looking.out is None and self.run is None:
            raise LaminaError("where to? give --out FOLDER (a single run has its own, RUN/analyses)")
        self.out = looking.out if looking.out is not None else self.run.analyses  # type: ignore[union-attr]
        check_writable(self.out / f"{name}.json")

    @property
    def data(self) -> str:
        """The images' name: as given, or those of the first run."""
        if self.looking.data is not None:
            return self.looking.data
        for spec in self.named.values():
            run = _run_of(spec)
            if run is not None:
                return run.source()
        raise LaminaError("which images? give --data (a run has its own)")

    def subjects(self) -> dict[str, Subject]:
        """The models opened, each with its images."""
        look = self.looking
        return open_subjects(
            self.named,
            self.data,
            images=look.images,
            encoder=look.encoder,
            batch_size=look.batch_size,
            workers=look.workers,
            device=look.device,
            seed=look.seed,
        )

    def write(self, result: Result, told: Summary, command: str) -> tuple[Path, ...]:
        """Write JSON, PNG and SVG, and the page that shows them: the run's report, or the folder's own."""
        about: dict[str, Any] = {
            "models": self.named,
            "settings": {**self.settings, "seed": self.looking.seed},
        }
        if self.name != "layers":
            about |= {"data": self.data, "images": self.looking.images}
        about["seconds"] = round(time.perf_counter() - self.started, 1)
        files = write_analysis(self.name, result, told, self.out, about, command)
        written = (files.json, files.png, files.svg)
        if self.run is not None and self.out == self.run.analyses:
            return (*written, write_report([self.run.path], self.run.report_file))
        return (*written, write_analyses_page(self.out))


def _single_run(models: list[str]) -> Run | None:
    return _run_of(models[0]) if len(models) == 1 else None


def _run_of(spec: str) -> Run | None:
    """The run that a model is, or is a step of."""
    place = Path(spec).expanduser()
    if place.parent.name == "checkpoints":
        place = place.parent.parent
    elif not place.exists():
        place = Path(spec.rpartition("@")[0] or spec).expanduser()
    return Run(place) if Run(place).exists() else None
