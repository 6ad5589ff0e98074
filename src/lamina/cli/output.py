"""The verbs that say what there is: a path, the methods, the recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.table import Table

from lamina.cli.evaluate import console
from lamina.cli.info import METHOD_COLUMNS, RECIPE_COLUMNS, method_rows, recipe_rows
from lamina.interop.inspect import inspect as inspect_path


def inspect(path: Annotated[str, tyro.conf.arg(metavar="PATH")], /) -> int:
    """Say what a path is: architecture, sizes, which weights would be used, and by which command.

    Nothing in a file is run. Known are runs, exports and tokenizers of lamina, timm, MAE (.pth), mmpretrain's
    MAE and MFF, BEiT and SimMIM, and folders of transformers.

    Args:
        path: A run, a step of it, a weights file or a folder.
    """
    console.print(str(inspect_path(path)), markup=False)
    return 0


def methods() -> int:
    """Every method with its parts: what is hidden, what the encoder sees, decoder, target, loss, paper."""
    _tell_rows(METHOD_COLUMNS, method_rows())
    console.print(
        "\nEach with --fusion mff or none; crossmae also with mix, its own. `lamina recipes` says which one "
        "a recipe starts with. Papers: arXiv.",
        markup=False,
    )
    return 0


def recipes() -> int:
    """Every recipe that `--recipe` of pretrain and evaluate takes, with its encoder, length and batch."""
    _tell_rows(RECIPE_COLUMNS, recipe_rows())
    console.print(
        "\nA method's plain name and -small start with --fusion mff; those with -ti, -s, -b, -l, -h are "
        "as published and start with --fusion none. CrossMAE's start with its own --fusion mix.",
        markup=False,
    )
    return 0


def _tell_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)
