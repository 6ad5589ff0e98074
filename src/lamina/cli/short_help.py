"""The short help of verbs that take a recipe: the options that most people need, each with its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from rich.table import Table

from lamina.core.console import make_console
from lamina.core.field_texts import field_texts
from lamina.methods.catalog import METHODS
from lamina.methods.catalog import recipe as named_recipe
from lamina.plan.choose import WORDS
from lamina.recipes.short_names import SHORT_NAMES

METHOD_NAMES = f"""
Methods: {", ".join(method.name for method in METHODS)}.
--recipe takes METHOD or METHOD-small, or METHOD-ti, -s, -b, -l or -h as published.

Where no --recipe is given, options whose default is "chosen" are chosen for the
images and the machine. Recipes have values of their own.

--help-all lists all other options. They have dotted names, such as --fusion.layers 0 2 11 or
--optim.weight-decay 0.1.
"""


def print_short_help(usage: str, arguments: type, flags: Mapping[str, str], end: str) -> None:
    """Print usage, a table of options, and the end.

    Args:
        arguments: the verb's arguments.
        flags: of these the ones that are no fields of the recipe, each with the value that it takes.
    """
    mae, texts = named_recipe("mae"), field_texts(arguments)
    table = Table("option", "default", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in flags.items():
        default = "mae" if name == "recipe" else getattr(arguments, name, None)
        table.add_row(_flag(name) + value, str(default) if default else "", texts[name])
    table.add_row("--help-all", "", "List every field of the recipe by its dotted name.")
    for name, dotted in SHORT_NAMES.items():
        group, _, field = dotted.partition(".")
        options = getattr(mae, group)
        own, kind = getattr(options, field), cast(type, type(options))
        default = "chosen" if dotted in WORDS else "" if own is None else str(own)
        table.add_row(_flag(name), default, field_texts(kind)[field])
    console = make_console()
    console.print(usage, markup=False)
    console.print(table)
    console.print(end, markup=False)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
