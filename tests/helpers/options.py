"""Options for several recipes at once, as far as each of them reads them."""

from collections.abc import Mapping
from typing import Any

from lamina.api import recipe
from lamina.core.choices import unread
from lamina.core.config import merge


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
