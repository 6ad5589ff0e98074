"""Two pages of the documentation that are written from the code: all options, and the command line.

    python tools/reference.py        # writes docs/reference/options.md and docs/reference/command-line.md

`make docs` runs it; git ignores what it writes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest.mock import patch

import tyro

from lamina.analyze.catalog import ANALYSES
from lamina.cli.entry import main
from lamina.cli.verbs import VERBS
from lamina.core.config import marks
from lamina.core.field_texts import field_texts
from lamina.core.ranges import Range
from lamina.data.samples.catalog import SAMPLES, at_path
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.detect.recipes import detect_recipe
from lamina.evaluate.fewshot.options import FewshotOptions
from lamina.evaluate.finetune.recipes import recipe_of
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.evaluate.segment.recipes import segment_recipe
from lamina.features.options import FeatureOptions, KNNOptions, LinearOptions
from lamina.methods.catalog import recipe
from lamina.recipes.short_names import SHORT_NAMES
from lamina.studies.options import StudyOptions
from lamina.tokenizer.options import TokenizerOptions

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
ROOTS: tuple[tuple[str, str, Any], ...] = (
    (
        "Pre-training",
        "Of `lamina pretrain` and its `--config`. Defaults are those of the recipe `mae`; "
        "`lamina pretrain DATA --out RUN --recipe NAME --dry-run` prints those of another one. An option "
        "that has no effect on a training is refused.",
        recipe("mae"),
    ),
    (
        "Fine-tuning and probes that train",
        "Of `lamina evaluate finetune`, `linear-mae` and `attentive`. Defaults are those of the recipe "
        "`finetune`.",
        recipe_of("finetune", "finetune"),
    ),
    (
        "Segmentation",
        "Of `lamina evaluate segment`. Defaults are those of `--head linear`.",
        segment_recipe(None, "linear"),
    ),
    ("Detection", "Of `lamina evaluate detect`. Defaults are those of `detect-small`.", detect_recipe(None)),
    ("Frozen features", "Of `lamina evaluate knn` and `linear`.", FeatureOptions()),
    ("Nearest neighbours", "Of `lamina evaluate knn`.", KNNOptions()),
    ("Linear probe", "Of `lamina evaluate linear`.", LinearOptions()),
    ("Few labels", "Of `lamina evaluate fewshot`.", FewshotOptions()),
    ("Robustness", "Of `lamina evaluate robustness`.", RobustnessOptions()),
    ("Several models", "Of `lamina evaluate all`.", CompareOptions()),
    *(
        (row.title, f"Of `lamina analyze {row.name}`. {row.help} It takes: {row.takes}", row.options())
        for row in ANALYSES
    ),
    ("Tokenizers", "Of `lamina tokenizer train`.", TokenizerOptions()),
    ("Studies", "Of `lamina study`.", StudyOptions()),
    *(
        (f"`{row.spec}`", f'{row.help} Given as `"{row.spec}?{row.example}"`.', at_path(row.options)())
        for row in SAMPLES
    ),
)
"""A heading, what the options belong to, and an instance that holds the defaults."""


@dataclass(frozen=True)
class Option:
    """One field of a dataclass of options, as the page shows it."""

    name: str
    """Dotted below its root, as on the command line but for dashes."""
    kind: str
    default: str
    help: str
    range: str


def verbs() -> dict[str, str]:
    """Each verb of the command line, and what it does."""
    return {verb.name: verb.help for verb in VERBS}


def options(root: Any, prefix: str = "") -> Iterator[Option]:
    """The options of a dataclass, those of its groups after its own."""
    hints = get_type_hints(type(root))
    ranges, arguments = marks(type(root), Range), marks(type(root), type(tyro.conf.arg()))
    texts = field_texts(type(root))
    own: list[Option] = []
    groups = []
    for field in fields(root):
        value = getattr(root, field.name)
        if is_dataclass(value):
            groups.append((f"{prefix}{field.name}.", value))
            continue
        allowed = "; ".join(map(str, ranges[field.name]))
        given = [argument.name for argument in arguments[field.name] if argument.name]
        name = f"{prefix}{given[0] if given else field.name}"
        own.append(Option(name, _kind(hints[field.name]), _value(value), texts.get(field.name, ""), allowed))
    yield from sorted(own, key=lambda option: option.name.count("."))
    for name, group in groups:
        yield from options(group, name)


def _kind(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        inner = [part for part in get_args(hint) if part is not Ellipsis]
        return _kind(inner[0]) + ("s" if Ellipsis in get_args(hint) else f", {len(inner)} of them")
    names = {int: "whole number", float: "number", str: "text", bool: "switch"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`" if value else "none"
    return f"`{value}`"


def options_page() -> str:
    """All options, a table for each group."""
    short = {dotted: name for name, dotted in SHORT_NAMES.items()}
    text = [
        "# All options",
        "",
        "*`tools/reference.py` writes this page from the dataclasses that the code reads.*",
        "",
        "A name with underscores here is written with dashes on the command line: `optim.base_lr` is",
        "`--optim.base-lr`. In `--config file.yaml` a group is a mapping: `optim: {base_lr: 1e-3}`. A switch",
        "is turned on by `--group.name` and off by `--group.no-name`.",
    ]
    for heading, about, root in ROOTS:
        text += ["", f"## {heading}", "", about]
        group: str | None = None
        for option in options(root):
            now = option.name.rpartition(".")[0]
            if now != group:
                group = now
                text += ["", f"### {heading}: `{group}`"] if group else []
                text += ["", "| option | value | what it does |", "|---|---|---|"]
            alias = (
                f", `--{short[option.name].replace('_', '-')}`"
                if option.name in short and root is ROOTS[0][2]
                else ""
            )
            value = ", ".join(part for part in (option.kind, option.range) if part)
            cells = (f"`{option.name}`{alias}", f"{value}; default {option.default}", option.help)
            text.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(text) + "\n"


def help_of(verb: str, flag: str = "--help") -> str:
    """What `lamina VERB --help` prints, 100 columns wide and without colours."""
    printed, plain = io.StringIO(), {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    with (
        patch.dict(os.environ, plain),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main([*verb.split(), flag])
    text = printed.getvalue().strip()
    if not text.startswith("usage:"):
        raise ValueError(f"lamina {verb} --help prints no usage")
    return text


def command_line_page() -> str:
    """Each verb with its help."""
    rows = [
        f"| [`lamina {verb}`](#lamina-{verb.replace(' ', '-')}) | {what} |" for verb, what in verbs().items()
    ]
    text = [
        "# Command line",
        "",
        "*`tools/reference.py` writes this page from the commands' own help.*",
        "",
        "[Commands by example](../commands.md) shows each of them at work.",
        "",
        "| command | what it does |",
        "|---|---|",
        *rows,
    ]
    for verb in verbs():
        text += ["", f"## lamina {verb}", "", "```text", help_of(verb), "```"]
    return "\n".join(text) + "\n"


PAGES = {"options.md": options_page, "command-line.md": command_line_page}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())
