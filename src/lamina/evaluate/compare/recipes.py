"""The recipe of each protocol of a comparison: the published one, one by its name, or with other fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, get_args

from lamina.core.choices import check_read
from lamina.core.config import flatten, merge
from lamina.core.errors import LaminaError
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipe
from lamina.evaluate.finetune.adapt import protocol_recipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe, recipe_of
from lamina.evaluate.run_options import Trained
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipe
from lamina.interop.load import load_encoder

Recipes = Mapping[str, Mapping[str, Any]]
"""By protocol: `recipe`, the name of the one to start from, and fields that differ from it."""

OF_THE_COMPARISON = {
    "train.seed": "--seed or --seeds",
    "train.device": "--device",
    "data.workers": "--workers",
}
"""Fields of a recipe that options of the verb decide."""

T = TypeVar("T")


def classifier_recipe(
    protocol: Trained,
    model: str,
    recipes: Recipes,
    epochs: float | None = None,
    encoder: str | EncoderOptions | None = None,
) -> FinetuneRecipe | None:
    """That of linear-mae, attentive or fine-tuning; None for the published one as it is.

    Args:
        protocol: which.
        model: whose size decides which is the published one.
        recipes: what was asked for.
        epochs: in place of the recipe's; warm-up keeps its share.
        encoder: timm name or options of the network, for a weights file that does not say.
    """
    if epochs is None and protocol not in recipes:
        return None

    def base(name: str | None) -> FinetuneRecipe:
        if name is None:
            return protocol_recipe(protocol, load_encoder(model, encoder=encoder, pretrained=False))
        return recipe_of(protocol, name)

    found = _chosen(protocol, recipes, base)
    if epochs is None:
        return found
    warm_up = found.optim.warmup_epochs * epochs / found.train.epochs
    shortened = merge(found, {"train": {"epochs": epochs}, "optim": {"warmup_epochs": warm_up}})
    check_read(found, shortened, where=f"{protocol}.")
    return shortened


def segmenting_recipe(recipes: Recipes) -> SegmentRecipe:
    """That of segmentation; a head without the name of a recipe has the one for small images."""
    head = _fields("segment", recipes).get("head")
    return _chosen("segment", recipes, partial(segment_recipe, head=head))


def detecting_recipe(recipes: Recipes) -> DetectRecipe:
    """That of detection."""
    return _chosen("detect", recipes, detect_recipe)


def check_recipes(recipes: Recipes) -> None:
    """Refuse what no protocol takes before anything is measured; which size is published does not matter.

    Raises:
        LaminaError: one line on the protocol, the recipe or the field that there is not.
    """
    trained = get_args(Trained)
    for protocol in recipes:
        if protocol not in (*trained, "segment", "detect"):
            raise LaminaError(f"recipes are of {', '.join(trained)}, segment or detect, not of {protocol!r}")
        if decided := sorted(set(OF_THE_COMPARISON) & set(flatten(_fields(protocol, recipes)))):
            raise LaminaError(f"{protocol}.{decided[0]} is given by {OF_THE_COMPARISON[decided[0]]}")
        if protocol == "segment":
            segmenting_recipe(recipes)
        elif protocol == "detect":
            detecting_recipe(recipes)
        else:
            _chosen(protocol, recipes, partial(_named, protocol))


def _chosen(protocol: str, recipes: Recipes, base: Callable[[str | None], T]) -> T:
    """The recipe that `recipe` names, with the other fields."""
    others = dict(_fields(protocol, recipes))
    name = others.pop("recipe", None)
    if not isinstance(name, str | None):
        raise LaminaError(f"{protocol}.recipe is the name of one, not {name!r}")
    started = base(name)
    chosen = merge(started, others, f"{protocol}.")
    check_read(started, chosen, where=f"{protocol}.")
    return chosen


def _named(protocol: str, name: str | None) -> FinetuneRecipe:
    return recipe_of(protocol, protocol if name is None else name)


def _fields(protocol: str, recipes: Recipes) -> Mapping[str, Any]:
    found = recipes.get(protocol, {})
    if not isinstance(found, Mapping):
        raise LaminaError(f"{protocol} takes a mapping, such as 'train: {{epochs: 10}}', not {found!r}")
    return found
