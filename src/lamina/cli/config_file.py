"""Recipes from `--config` files, and which of their fields have an effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from lamina.cli.parse import peek
from lamina.core.choices import check_read
from lamina.core.config import flatten, merge
from lamina.core.errors import LaminaError
from lamina.core.records import parse_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Start(Generic[T]):
    """The recipe that the options of a command line are given for."""

    recipe: T
    """With the fields of --config, where it is given."""
    before: T
    """Without those that people wrote there: of a run's recipe.yaml all fields are the run's."""
    fields: frozenset[str] = frozenset()
    """Dotted names of the fields of --config."""

    def check(self, chosen: T) -> None:
        """Refuse what has no effect, of --config and of the options that led to the recipe `chosen`."""
        check_read(self.before, self.recipe, in_the_end=chosen)
        check_read(self.recipe, chosen)


def with_config(
    recipe: T,
    args: Sequence[str],
    saved: Callable[[Mapping[str, Any], T], Mapping[str, Any]] = lambda fields, _: fields,
) -> Start[T]:
    """The recipe as --config has it, where it is given.

    `saved` chooses, of the fields that a run wrote, those that recipes have today."""
    config = peek(args, "--config")
    if config is None:
        return Start(recipe, recipe)
    content = _read_mapping(Path(config))
    fields = _fields_of(content)
    names = frozenset(flatten(fields))
    if fields is content:
        return Start(merge(recipe, fields), recipe, names)
    configured = merge(recipe, saved(fields, recipe))
    return Start(configured, configured, names)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 1e-3 is one, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+"), list("-+0123456789.")
)


def read_config(file: Path) -> dict[str, Any]:
    """Fields of a recipe from a YAML file, as people write it or as a run keeps it.

    Raises:
        LaminaError: where it cannot be read, or holds something else.
    """
    return _fields_of(_read_mapping(file))


def _fields_of(content: dict[str, Any]) -> dict[str, Any]:
    """Those of a recipe: in a run's recipe.yaml they are a group beside what else is known of the run."""
    recipe = content.get("recipe")
    return recipe if isinstance(recipe, dict) else content


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        # Where it began as a run's recipe.yaml it may have been edited since, so its digest is not checked.
        content = parse_yaml(file.read_text(encoding="utf-8"), verify=False, kind=_Loader)
    except OSError as error:
        raise LaminaError(f"--config {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LaminaError(
            f"--config {file} is not text in UTF-8 (byte {error.start + 1}); save it in that encoding"
        ) from error
    except ValueError as error:
        raise LaminaError(f"--config {file} cannot be used: {' '.join(str(error).split())}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise LaminaError(f"--config {file} must hold a mapping of options, such as 'train: {{epochs: 10}}'")
    return content
