"""Options of small runs, and options for several recipes at once, as far as each of them reads them."""

from collections.abc import Mapping
from typing import Any

from lamina.api import recipe
from lamina.core.choices import unread
from lamina.core.config import merge

TINY_NETWORK: dict[str, Any] = {
    "encoder.width": 24,
    "encoder.depth": 2,
    "encoder.heads": 2,
    "decoder.width": 16,
    "decoder.depth": 1,
    "decoder.heads": 2,
    "fusion.layers": "all",
}
"""A network that takes a step in milliseconds, by the dotted names that Python, YAML and the command line share."""
TINY_RUN: dict[str, Any] = {
    "recipe": "mae-small",
    "image-size": 16,
    "patch-size": 4,
    "workers": 0,
    "device": "cpu",
    **TINY_NETWORK,
}
"""The same as flags of `lamina pretrain`, for images of 16 px: see `words`."""


def words(options: Mapping[str, Any]) -> list[str]:
    """The options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def as_read(start: str, options: Mapping[str, Any], fusion: str | None = None) -> dict[str, Any]:
    """Of options by their dotted names those that the recipe `start` reads with them, and with that kind of
    fusion; others are refused."""
    chosen = recipe(start)
    for name, value in (options if fusion is None else {**options, "fusion.kind": fusion}).items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        chosen = merge(chosen, nested)
    idle = unread(chosen)
    return {name: value for name, value in options.items() if name not in idle}
