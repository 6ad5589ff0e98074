"""Exports a run for other tools: an encoder, or a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lamina.core.errors import LaminaError
from lamina.interop.export import Exported, export_timm
from lamina.interop.export_classifier import export_supervised
from lamina.runs.model_spec import locate_step
from lamina.runs.run import load_task
from lamina.supervised.classifier import Supervised


def export_run(run: str | Path, out: str | Path, to: Literal["timm", "lamina"] = "timm") -> Exported:
    """Export a run: its encoder for timm; of a run on labels its classifier, for timm or for lamina.

    Raises:
        LaminaError: where there is no such run, or it cannot be exported in that form.
    """
    place, step = locate_step(run)
    task, recipe = load_task(place, step)
    if isinstance(task, Supervised):
        return export_supervised(
            task,
            recipe.encoder,
            recipe.fusion,
            out,
            class_names=recipe.labels.classes,
            step=step,
            data=recipe.data,
            plain=to == "timm",
        )
    if to == "lamina":
        raise LaminaError(f"--to lamina is for classifiers, and {run} has none; use --to timm")
    return export_timm(run, out)
