"""A run handed over to other tools, by what it trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lamina.errors import LaminaError
from lamina.interop.classifier import export_classifier, export_timm_classifier
from lamina.interop.export import Exported, export_timm
from lamina.interop.loading import locate_step
from lamina.runs import load_task
from lamina.supervised import Supervised


def export_run(run: str | Path, out: str | Path, to: Literal["timm", "lamina"] = "timm") -> Exported:
    """Hand a run over: an encoder to timm; of a run on labels the classifier, to timm or as a file of our
    own.

    Raises:
        LaminaError: where there is no such run, or it cannot be handed over so.
    """
    place, step = locate_step(str(run))
    task, recipe = load_task(place, step)
    if isinstance(task, Supervised):
        write = export_timm_classifier if to == "timm" else export_classifier
        return write(task, recipe, Path(out), step)
    if to == "lamina":
        raise LaminaError(f"{run} has no classifier, and its folder is what lamina reads; use --to timm")
    return export_timm(run, out)
