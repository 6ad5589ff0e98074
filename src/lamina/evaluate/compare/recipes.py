"""Recipes of a comparison's protocols, as its file of options has them, checked before any measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.core.config import flatten
from lamina.core.errors import LaminaError
from lamina.evaluate.catalog import PROTOCOLS
from lamina.evaluate.protocol import imported

Recipes = Mapping[str, Mapping[str, Any]]
"""By protocol: `recipe`, the name of the one to start from, and fields that differ from it."""

OF_THE_COMPARISON = {
    "train.seed": "--seed or --seeds",
    "train.device": "--device",
    "data.workers": "--workers",
}
"""Fields of a recipe that options of the verb decide."""


def check_recipes(recipes: Recipes) -> None:
    """Refuse what no protocol takes; which size of a published recipe fits a model does not matter here.

    Raises:
        LaminaError: one line on the protocol, the recipe or the field that there is not.
    """
    known = {protocol.name: protocol.recipe for protocol in PROTOCOLS if protocol.recipe}
    for protocol, fields in recipes.items():
        if protocol not in known:
            raise LaminaError(f"there are recipes for {', '.join(known)}, not for {protocol!r}")
        if not isinstance(fields, Mapping):
            raise LaminaError(f"{protocol} takes a mapping, such as 'train: {{epochs: 10}}', not {fields!r}")
        if decided := sorted(set(OF_THE_COMPARISON) & set(flatten(fields))):
            raise LaminaError(f"{protocol}.{decided[0]} is given by {OF_THE_COMPARISON[decided[0]]}")
        imported(known[protocol])(protocol, fields)
