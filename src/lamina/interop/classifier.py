"""Classifiers handed over: to plain timm where the head reads the last layer, else as a file of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lamina.build import build_task
from lamina.errors import LaminaError
from lamina.files import write_atomically
from lamina.interop.export import Exported, save_tensors, timm_config
from lamina.interop.loading import export_files
from lamina.options import merge, to_mapping
from lamina.recipes import Recipe
from lamina.supervised import Supervised

FORMAT = "lamina-classifier"


def export_timm_classifier(task: Supervised, recipe: Recipe, out: Path, step: int) -> Exported:
    """Write encoder and head for plain timm: `timm.create_model(architecture, **model_args)` and
    `load_state_dict(..., strict=True)` give the same logits.

    Raises:
        LaminaError: where the head reads fused features, which timm does not have.
    """
    if recipe.fusion.kind != "none":
        raise LaminaError(
            "the head of this run reads fused features, and a timm model has no fusion; use --to lamina, or "
            "train with --fusion none"
        )
    files = Exported.at(out, False, step)
    config = timm_config(task, recipe.encoder, recipe.data.eval_crop_share)
    pool = {"cls": "token", "mean": "avg"}[task.pool]
    arguments = {**config["model_args"], "num_classes": task.n_classes, "global_pool": pool}
    config |= {"num_classes": task.n_classes, "model_args": arguments, "global_pool": pool}
    config["pretrained_cfg"] |= {
        "num_classes": task.n_classes,
        "label_names": list(recipe.labels.classes),
    }
    state = dict(task.encoder.timm_state())
    heads = {"head": task.head, **({"head_dist": task.head_dist} if task.head_dist is not None else {})}
    for name, head in heads.items():
        state |= {f"{name}.{part}": tensor for part, tensor in head.state_dict().items()}
    text = json.dumps(config, indent=2)
    save_tensors(state, files.weights, text)
    write_atomically(files.config, text + "\n")
    return files


def export_classifier(task: Supervised, recipe: Recipe, out: Path, step: int) -> Exported:
    """Write encoder, fusion and head, with the recipe that builds them, for `load_classifier`."""
    files = Exported.at(out, False, step)
    text = json.dumps({"format": FORMAT, "version": 1, "step": step, "recipe": to_mapping(recipe)}, indent=2)
    save_tensors(task.state_dict(), files.weights, text)
    write_atomically(files.config, text + "\n")
    return files


def load_classifier(path: str | Path) -> tuple[Supervised, Recipe]:
    """What `export_classifier` wrote, in evaluation mode; `classifier.logits(images)` are those of the run.

    Raises:
        LaminaError: where there is no such file, or it is damaged.
    """
    weights = export_files(Path(path)).weights
    about = _about(weights)
    recipe = merge(Recipe(), about["recipe"])
    task = build_task(recipe)
    assert isinstance(task, Supervised)
    try:
        task.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise LaminaError(f"{weights} is damaged: {' '.join(str(error).split())[:200]}") from None
    return task.eval(), recipe


def _about(weights: Path) -> dict[str, Any]:
    if not weights.is_file():
        raise LaminaError(f"there is no classifier {weights}")
    try:
        with safe_open(weights, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("lamina", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise LaminaError(f"{weights} is damaged or no safetensors file: {error}") from None
    if about.get("format") != FORMAT:
        raise LaminaError(f"{weights} is no classifier that `lamina export --to lamina` wrote")
    return about  # type: ignore[no-any-return]
