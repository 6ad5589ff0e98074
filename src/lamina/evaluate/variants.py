"""The text that tells scores of one protocol apart: recipe, length, and the fields that were changed."""

from __future__ import annotations

import json
from typing import Any

from lamina.core.config import describe_changes, flatten, to_mapping
from lamina.data.digest import short_digest
from lamina.runs.same_settings import free_names

_SAID_OTHERWISE = ("train.seed", "train.epochs", "train.max_steps")
"""The seed is a field of the score, and the length is in the text before the changes."""


def variant_of(start: str, recipe: Any, published: Any | None) -> str:
    """`start`, and the fields in which the recipe differs from the published one.

    Args:
        start: the recipe's name and its length.
        recipe: what was trained.
        published: the recipe of that name; None for a recipe that was made in Python, of which the text has
            a digest of all fields.
    """
    left_out = (*free_names(recipe), *_SAID_OTHERWISE)
    if published is not None:
        changes = describe_changes(published, recipe, left_out)
        return f"{start}, {changes}" if changes else start
    fields = {name: value for name, value in flatten(to_mapping(recipe)).items() if name not in left_out}
    return f"{start}, {short_digest(json.dumps(fields, sort_keys=True))}"
