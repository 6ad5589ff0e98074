"""Opens the teachers and tokenizers that a recipe names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.frozen import WeightsId, identify
from lamina.core.interfaces import Target
from lamina.interop.foreign import read_weights
from lamina.interop.load import load_encoder, load_projected
from lamina.interop.timm_models import fetch_published
from lamina.recipes.recipe import Recipe
from lamina.runs.run import Run, load_task
from lamina.supervised.classifier import Supervised
from lamina.supervised.normalized import Standardised
from lamina.targets.teacher import Teacher, TeacherVit
from lamina.targets.token_ids import TokenIds
from lamina.tokenizer.folder import load_tokenizer


class _Network(NamedTuple):
    vit: TeacherVit
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_target(recipe: Recipe) -> tuple[Recipe, Target | None]:
    """The recipe with the SHA-256 of its teacher or tokenizer, and the target that uses it; None for targets
    that are functions of the image alone.

    Raises:
        LaminaError: where no teacher or tokenizer is named, or the named one cannot be opened or used.
    """
    kind = recipe.target.kind
    if kind not in ("tokens", "teacher"):
        return recipe, None
    target = _tokens(recipe) if kind == "tokens" else _teacher(recipe)
    known = replace(recipe.target, width=target.width, target_sha256=target.identity.sha256)
    return replace(recipe, target=known), target


def _tokens(recipe: Recipe) -> TokenIds:
    if recipe.target.tokenizer is None:
        raise LaminaError(
            "this method needs a tokenizer: train one with `lamina tokenizer train DATA --out tok` and give "
            "--target.tokenizer tok, or give the file of DALL-E's encoder"
        )
    patch = recipe.encoder.patch_size
    assert patch is not None
    tokenizer, identity = load_tokenizer(recipe.target.tokenizer)
    return TokenIds(tokenizer, (patch, patch), identity)


def _teacher(recipe: Recipe) -> Teacher:
    options, student = recipe.target, recipe.encoder
    if options.teacher is None:
        raise LaminaError(
            "this method needs a teacher; give --target.teacher with a run, a weights file or timm/NAME"
        )
    if options.projected and Path(options.teacher).expanduser().is_dir():
        network = _Network(*load_projected(options.teacher))
    elif options.projected:
        network = _with_head(options.teacher, options.teacher_encoder)
    else:
        encoder = load_encoder(options.teacher, encoder=options.teacher_encoder).encoder
        network = _Network(
            encoder.plain_vit(), *(tuple(t.flatten().tolist()) for t in (encoder.mean, encoder.std))
        )
    assert student.image_size is not None
    assert student.patch_size is not None
    grid = (student.image_size[0] // student.patch_size, student.image_size[-1] // student.patch_size)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, None: None}[options.teacher_precision]
    return Teacher(
        network.vit,
        network.mean,
        network.std,
        grid,
        projected=options.projected,
        scores=recipe.masking.kind == "scored",
        dtype=dtype,
        identity=WeightsId(options.teacher, identify(options.teacher, network.vit).sha256),
    )


def _with_head(spec: str, encoder: str | None) -> _Network:
    """A teacher with the head that it was published with, which `load_encoder` leaves out."""
    name = (encoder or spec).removeprefix("timm/")
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.num_classes:
        raise LaminaError(
            f"target.projected needs a timm model that was published with a head, and {name} has none; turn "
            "it off (--target.no-projected), or use timm/vit_base_patch16_clip_224.openai"
        )
    if encoder is None:
        vit = fetch_published(name, "a weights file and --target.teacher-encoder")
    else:
        vit = timm.create_model(name, num_classes=known.num_classes)
        try:
            vit.load_state_dict(read_weights(spec), strict=True)
        except RuntimeError as error:
            raise LaminaError(f"{spec} does not fit {name} with its head: {error}") from None
    return _Network(vit, tuple(known.mean), tuple(known.std))  # type: ignore[arg-type]


def open_teacher(recipe: Recipe) -> tuple[Recipe, nn.Module | None]:
    """The teacher of supervised training: images on [0, 1] to logits of the recipe's classes; None without.

    Raises:
        LaminaError: where it cannot be opened, or was trained on other classes.
    """
    options = recipe.labels
    if recipe.method != "supervised" or options.teacher is None:
        return recipe, None
    if Run(options.teacher).exists():
        task, recipe_of_teacher = load_task(options.teacher)
        classes = recipe_of_teacher.labels.classes
        if not isinstance(task, Supervised) or classes != options.classes:
            raise LaminaError(
                f"{options.teacher} cannot be the teacher: it was not trained on the same "
                f"{len(options.classes)} classes; give a run that was trained on the labels of these data"
            )
        teacher: nn.Module = _Logits(task)
    else:
        network = _with_head(options.teacher, None)
        if network.vit.num_classes != len(options.classes):
            raise LaminaError(
                f"{options.teacher} has {network.vit.num_classes} classes and the data have "
                f"{len(options.classes)}; use a run on the same classes"
            )
        teacher = Standardised(network.vit, network.mean, network.std)
    sha256 = identify(options.teacher, teacher).sha256
    return replace(recipe, labels=replace(options, teacher_sha256=sha256)), teacher


class _Logits(nn.Module):
    """A trained classifier as a function of stored images, which it normalises itself."""

    def __init__(self, net: Supervised) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """(B, K)."""
        return self.net.logits(images)
