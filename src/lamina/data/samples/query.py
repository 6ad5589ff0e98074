"""`name=value&name=value` as a frozen dataclass: the parameters of a sample."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from lamina.core.errors import LaminaError

T = TypeVar("T")


def parse_query(query: str, options: type[T]) -> T:
    """A dataclass of int and bool fields from a text such as `crop=64&grey=1`.

    Raises:
        LaminaError: for a name that is no field, or a value that is no whole number.
    """
    known = {field.name for field in fields(options)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise LaminaError(f"a sample has no parameter {name!r}; take {', '.join(sorted(known))}")
        if not text.isdecimal():
            raise LaminaError(f"the sample's {name} is a whole number, not {text!r}")
        values[name] = int(text)
    return options(**values)
