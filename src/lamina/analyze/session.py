"""One analysis from start to end: its models are opened, its numbers computed, its files written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lamina.analyze.catalog import Analysis
from lamina.analyze.models import Images, ModelOnImages, open_models
from lamina.analyze.options import AnalysisOptions
from lamina.analyze.output import AnalysisFiles, Summary, write_analysis
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.encoder.options import network_options
from lamina.runs.model_spec import parse_model, short_names
from lamina.runs.run import Run


@runtime_checkable
class Progress(Protocol):
    """Is called while an analysis computes."""

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """What is being computed, how much of it is done, and how much there is."""


class AnalysisSession:
    """One call of an analysis: its models by short names, its options, and its folder.

    Args:
        analysis: the row of the analysis in `lamina.analyze.catalog`.
        models: whatever `load_encoder` takes.
        options: of the type `analysis.options`.
        progress: called while it computes.
        say: called with a line of text that people should see before it computes.

    Raises:
        LaminaError: where no model is named, one is named twice, or nothing can be written.
    """

    def __init__(
        self,
        analysis: Analysis,
        models: Sequence[str],
        options: Any,
        progress: Progress | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        if not models:
            raise LaminaError("name at least one model")
        self.analysis, self.options, self.progress, self.say = analysis, options, progress, say
        self.models = short_names(list(models))
        self.run_analysed = parse_model(models[0]).run if len(models) == 1 else None
        self.folder = _folder(models, options.out, self.run_analysed)
        _check_folder(self.folder / f"{analysis.name}.json")
        self.partial_results: Path | None = None
        """A file of results so far, to be deleted once all results are written."""
        self._images: list[Images] = []

    @property
    def data(self) -> str:
        """The images' name: as given, or those of the first run.

        Raises:
            LaminaError: where neither is known.
        """
        if self.options.data is not None:
            return str(self.options.data)
        for spec in self.models.values():
            run = parse_model(parse_model(spec).name).run
            if run is not None:
                return run.source()
        raise LaminaError("no images are named; give --data (a run has images of its own)")

    def open_models(self) -> dict[str, ModelOnImages]:
        """The models opened, each with the images, for analyses that take `AnalysisOptions`."""
        options: AnalysisOptions = self.options
        models = open_models(
            self.models,
            self.data,
            images=options.images,
            encoder=network_options(options.network, options.heads),
            batch_size=options.batch_size,
            workers=options.workers,
            device=options.device,
            seed=options.seed,
            progress=self.progress,
        )
        self._images = [model.batches for model in models.values() if isinstance(model.batches, Images)]
        return models

    def run(self, command: str) -> tuple[Summary, AnalysisFiles]:
        """Compute, draw and summarise the analysis, and write it.

        Args:
            command: how it was made; shown under the picture.
        """
        started = time.perf_counter()
        run, draw, summarize = self.analysis.load()
        result = run(self, self.options)
        summary = self._with_image_notes(summarize(result))
        about = {**self._about(), "seconds": round(time.perf_counter() - started, 1)}
        files = write_analysis(self.analysis.name, result, draw(result), summary, self.folder, about, command)
        if self.partial_results is not None:
            self.partial_results.unlink(missing_ok=True)
        return summary, files

    def _about(self) -> dict[str, Any]:
        """What the numbers depend on: models, images and settings."""
        settings = asdict(self.options)
        for name in ("data", "out", "images", "workers", "device"):
            settings.pop(name, None)
        about: dict[str, Any] = {"models": self.models, "settings": settings}
        if hasattr(self.options, "data"):
            about |= {"data": self.data, "images": self.options.images}
        return about

    def _with_image_notes(self, summary: Summary) -> Summary:
        """The summary, with notes on images that could not be read and the like."""
        notes = dict.fromkeys(note for images in self._images for note in images.notes())
        return replace(summary, notes=(*summary.notes, *notes))


def _folder(models: Sequence[str], out: Path | None, run: Run | None) -> Path:
    """Where the files go: `out`, or a single run's own folder of analyses."""
    if out is not None:
        return out
    if run is None:
        has_none = f"{models[0]} is no run, so it has" if len(models) == 1 else "several models have"
        raise LaminaError(f"{has_none} no folder of its own for analyses; give --out FOLDER")
    return run.analyses


def _check_folder(file: Path) -> None:
    """As `check_writable`, but a refusal after it leaves nothing behind: folders are made with the result."""
    absent = [folder for folder in file.parents if not folder.exists()]
    try:
        check_writable(file)
    finally:
        for folder in absent:
            with suppress(OSError):
                folder.rmdir()
