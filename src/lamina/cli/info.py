"""The verbs that describe what there is: `methods` and `recipes`, read off the recipes, and `inspect`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import tyro

from lamina.cli.output import print_table, say
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipes
from lamina.evaluate.finetune.recipes import FinetuneRecipe, finetune_recipes
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipes
from lamina.methods.catalog import METHODS
from lamina.methods.catalog import recipes as method_recipes
from lamina.recipes.recipe import Recipe

METHOD_COLUMNS = ("recipe", "hidden", "encoder sees", "decoder", "target", "loss", "paper")
RECIPE_COLUMNS = ("recipe", "encoder", "epochs or steps", "batch", "what it is")

_MASKINGS = {
    "random": "single",
    "blocks": "squares",
    "blockwise": "rectangles",
    "inverse": "all but a rectangle",
    "scored": "by attention",
}
_DECODERS = {
    "mae": "MAE's",
    "linear": "linear",
    "cross": "cross",
    "prompt": "prompt",
}


def inspect(path: Annotated[str, tyro.conf.arg(metavar="PATH")], /) -> int:
    """Describe a file or folder: architecture, sizes, which weights are usable, and the commands that use
    them.

    Nothing in a file is executed. Known are runs, exports and tokenizers of lamina, timm, MAE (.pth), MAE and
    MFF of mmpretrain, BEiT and SimMIM, and folders of transformers.

    Args:
        path: A run, a step of a run (runs/mff@100), a weights file or a folder.
    """
    from lamina.interop.inspect import inspect as inspect_path

    say(str(inspect_path(path)))
    return 0


def methods() -> int:
    """List every method with its parts: what is masked, what the encoder sees, the decoder, the target, the
    loss and the paper."""
    print_table(METHOD_COLUMNS, method_rows())
    say(
        "\nEach method takes --fusion mff or none; crossmae also takes mix, its own fusion. `lamina recipes` "
        "shows with which one a recipe starts. Papers are on arXiv."
    )
    return 0


def recipes() -> int:
    """List every recipe that --recipe of pretrain and evaluate takes, with its encoder, length and batch
    size."""
    print_table(RECIPE_COLUMNS, recipe_rows())
    say(
        "\nNAME and NAME-small start with --fusion mff; NAME-ti, -s, -b, -l and -h are as published and "
        "start with --fusion none. Those of CrossMAE start with --fusion mix, its own; those of fast with "
        "none, and those of fast-mff with mff."
    )
    return 0


def method_rows() -> list[tuple[str, ...]]:
    """A row of `METHOD_COLUMNS` for every method."""
    return [_method_row(method.name, method.published) for method in METHODS]


def recipe_rows() -> list[tuple[str, ...]]:
    """A row of `RECIPE_COLUMNS` for every recipe, those of segmentation and detection last."""
    rows: list[tuple[str, ...]] = []
    trained: dict[str, Callable[[], Recipe | FinetuneRecipe]] = {**method_recipes(), **finetune_recipes()}
    for name, build in trained.items():
        recipe = build()
        encoder = _encoder(recipe) if isinstance(recipe, Recipe) else "the model's"
        epochs = f"{recipe.train.epochs:g}" if recipe.train.epochs is not None else "-"
        rows.append((name, encoder, epochs, str(recipe.train.batch_size), _sentence(build)))
    dense: dict[str, Callable[[], SegmentRecipe | DetectRecipe]] = {**segment_recipes(), **detect_recipes()}
    for name, start in dense.items():
        made = start()
        trains = isinstance(made, DetectRecipe) or made.trains
        length = (f"{made.train.max_steps:,} steps", str(made.train.batch_size)) if trains else ("-", "-")
        rows.append((name, "the model's", *length, _sentence(start)))
    return rows


def _method_row(name: str, build: Callable[..., Recipe]) -> tuple[str, ...]:
    recipe = build()
    if recipe.method == "supervised":
        return (name, "nothing", "all", "linear head", "labels", "cross entropy", _paper(build))
    second = recipe.method == "cmae"
    return (
        name,
        f"{recipe.masking.mask_ratio:.2f}, {_MASKINGS[recipe.masking.kind]}",
        {"drop": "visible", "replace": "mask tokens too"}[recipe.encoder.hide],
        _decoder(recipe),
        _target(recipe) + (", second view" if second else ""),
        recipe.loss.replace("_", " ") + (" + InfoNCE" if second else ""),
        _paper(build),
    )


def _decoder(recipe: Recipe) -> str:
    options = recipe.decoder
    size = "" if options.kind == "linear" else f", {options.width} x {options.depth}"
    return _DECODERS[options.kind] + size


def _target(recipe: Recipe) -> str:
    options = recipe.target
    if options.kind == "pixels":
        text = "normalised pixels" if options.norm_pix else "pixels"
        return text if options.low_pass is None else f"{text}, low-passed"
    return {"hog": "gradient histograms", "tokens": "tokenizer's ids"}.get(options.kind, "teacher's features")


def _encoder(recipe: Recipe) -> str:
    options = recipe.encoder
    size = "" if options.image_size is None else f" at {options.image_size[0]} px"
    return f"{options.name}{size}"


def _sentence(build: Callable[..., Any]) -> str:
    """The first sentence of the docstring of a recipe."""
    text = " ".join(_docstring(build).split("\n\n")[0].split())
    return text.split(": ")[0].rstrip(".") if len(text) > 90 and ": " in text else text.rstrip(".")


def _paper(build: Callable[..., Recipe]) -> str:
    found = re.search(r"arXiv (\d{4}\.\d{5})", _docstring(build))
    return found[1] if found else ""


def _docstring(build: Callable[..., Any]) -> str:
    while isinstance(build, partial):
        inner = build.args[0] if build.args and callable(build.args[0]) else build.func
        build = inner
    return build.__doc__ or ""
