"""Options that the recipe of a protocol does not have, or does not use, since the model decides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lamina.core.choices import refuse_unread, unread
from lamina.core.config import current_names, differences, flatten, to_mapping
from lamina.core.errors import LaminaError
from lamina.data.options import LIMIT_FIELDS
from lamina.recipes.recipe import Recipe

PRETRAINING_FIELDS = tuple(flatten(to_mapping(Recipe())))
"""Dotted names of all options of pre-training. Earlier versions wrote all of them into the recipe of a
training on labels, and those of `data` into that of a dense protocol. Those that today's recipes do not have
never had an effect there."""
_SWITCHED_LATER = ("train.epochs", "optim.warmup_epochs", "head.mask_convs")
"""A recipe that is cut short by max_steps or warmup_steps still says its epochs, and data without masks have
no use for a mask head. Where such fields are given beside what switches them off they are refused as the
options are read (`lamina.core.choices.check_read`)."""


def without_old_fields(saved: Mapping[str, Any], recipe: Any, where: str = "") -> dict[str, Any]:
    """The fields of a saved recipe without those of `PRETRAINING_FIELDS` that `recipe` does not have.

    Raises:
        LaminaError: where it is the recipe of a pre-training.
    """
    if not where:
        saved = current_names(saved, Recipe)
        if saved.get("method", "supervised") != "supervised":
            raise LaminaError("this is the recipe of a pre-training; give that of an evaluation")
    current: dict[str, Any] = {}
    for name, value in saved.items():
        dotted = f"{where}{name}"
        if isinstance(value, Mapping):
            inner = without_old_fields(value, getattr(recipe, str(name), None), f"{dotted}.")
            current |= {name: inner} if inner or not value else {}
        elif hasattr(recipe, str(name)) or dotted not in PRETRAINING_FIELDS:
            current[name] = value
    return current


def check_fields(given: Iterable[str], recipe: Any, verb: str) -> None:
    """Refuse options of pre-training, by their dotted names, that `recipe`, one of the protocol that is
    called `verb` on the command line, does not have."""
    own = flatten(to_mapping(recipe))
    found = [name for name in given if name in PRETRAINING_FIELDS and name not in own]
    if not found:
        return
    names = ", ".join(f"--{name.replace('_', '-')}" for name in found)
    are = "is an option" if len(found) == 1 else "are options"
    network = any(name.startswith("encoder.") for name in found)
    mend = "; for a weights file that does not say its network, give --network" if network else ""
    raise LaminaError(
        f"{names} {are} of `lamina pretrain`, not of `lamina evaluate {verb}`, which starts from a trained "
        f"model and would not use {'it' if len(found) == 1 else 'them'}{mend}"
    )


def check_options(requested: Any, published: Any, run: Any) -> None:
    """Refuse options of a recipe that change nothing.

    Args:
        requested: the recipe as it was given.
        published: the named recipe that it started from.
        run: the recipe that is run with this model; limits of files are no lower than the model's own.
    """
    given = differences(published, requested)
    for name in LIMIT_FIELDS:
        if f"data.{name}" in given and getattr(run.data, name) != (limit := getattr(requested.data, name)):
            raise LaminaError(
                f"data.{name} {limit} has no effect on {published.name} of this model, which was trained "
                f"with {getattr(run.data, name)}: leave it out, or give a higher one"
            )
    idle, default = unread(requested), differences(type(requested)(), requested)
    names = [n for n in given if n in default and n not in _SWITCHED_LATER]
    refuse_unread({name: idle[name] for name in names if name in idle})
