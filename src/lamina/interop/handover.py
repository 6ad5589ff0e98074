"""A run handed over to other tools, by what it trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lamina.core.errors import LaminaError
from lamina.interop.export import Exported, export_timm
from lamina.interop.export_classifier import ExportedClassifier, export_supervised
from lamina.runs.model_spec import locate_step
from lamina.runs.run import load_task
from lamina.supervised.classifier import Supervised


def export_run(
    run: str | Path, out: str | Path, to: Literal["timm", "lamina"] = "timm"
) -> Exported | ExportedClassifier:
    """Hand a run over: an encoder to timm; of a run on labels the classifier, to timm or as a file of our
    own.

    Raises:
        LaminaError: where there is no such run, or it cannot be handed over so.
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
            crop_share=recipe.data.eval_crop_share,
            plain=to == "timm",
        )
    if to == "lamina":
        raise LaminaError(f"{run} has no classifier, and its folder is what lamina reads; use --to timm")
    return export_timm(run, out)
