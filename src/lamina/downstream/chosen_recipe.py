"""The recipe of each protocol of a comparison: the published one, one by its name, or with other fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, get_args

from lamina.downstream.adapting import protocol_recipe
from lamina.downstream.detect import DetectRecipe, detect_recipe
from lamina.downstream.segment import SegmentRecipe, segment_recipe
from lamina.downstream.training import Trained
from lamina.errors import LaminaError
from lamina.interop import load_encoder
from lamina.options import merge
from lamina.recipes import Recipe
from lamina.recipes import recipe as named_recipe

Recipes = Mapping[str, Mapping[str, Any]]
"""By protocol: `recipe`, the name of the one to start from, and fields that differ from it."""

T = TypeVar("T")


def classifier_recipe(
    protocol: Trained, model: str, recipes: Recipes, epochs: float | None = None
) -> Recipe | None:
    """That of linear-mae, attentive or fine-tuning; None for the published one as it is.

    Args:
        protocol: which.
        model: whose size decides which is the published one.
        recipes: what was asked for.
        epochs: in place of the recipe's; warm-up keeps its share.
    """
    if epochs is None and protocol not in recipes:
        return None

    def base(name: str | None) -> Recipe:
        found = named_recipe(name) if name else protocol_recipe(protocol, load_encoder(model))
        if epochs is None:
            return found
        warm_up = found.optim.warmup_epochs * epochs / found.train.epochs
        return merge(found, {"train": {"epochs": epochs}, "optim": {"warmup_epochs": warm_up}})

    return _chosen(recipes.get(protocol, {}), base)


def segmenting_recipe(recipes: Recipes) -> SegmentRecipe:
    """That of segmentation."""
    return _chosen(recipes.get("segment", {}), segment_recipe)


def detecting_recipe(recipes: Recipes) -> DetectRecipe:
    """That of detection."""
    return _chosen(recipes.get("detect", {}), detect_recipe)


def check_recipes(recipes: Recipes) -> None:
    """Refuse what no protocol takes before anything is measured.

    Raises:
        LaminaError: one line on the protocol, the recipe or the field that there is not.
    """
    known: dict[str, Callable[[str | None], Any]] = {
        **{name: partial(_named, name) for name in get_args(Trained)},
        "segment": segment_recipe,
        "detect": detect_recipe,
    }
    for protocol, fields in recipes.items():
        if protocol not in known:
            raise LaminaError(f"recipes are of {', '.join(known)}, not of {protocol!r}")
        if not isinstance(fields, Mapping):
            raise LaminaError(f"{protocol} takes a mapping, such as 'train: {{epochs: 10}}', not {fields!r}")
        _chosen(fields, known[protocol], f"{protocol}.")


def _named(protocol: str, name: str | None) -> Recipe:
    return named_recipe(name or protocol)


def _chosen(fields: Mapping[str, Any], base: Callable[[str | None], T], where: str = "") -> T:
    """The recipe that `recipe` names, with the other fields."""
    others = dict(fields)
    name = others.pop("recipe", None)
    if not isinstance(name, str | None):
        raise LaminaError(f"{where}recipe is the name of one, not {name!r}")
    return merge(base(name), others, where)
