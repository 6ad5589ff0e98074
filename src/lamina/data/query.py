"""What stands behind a path or a name: `photos.csv?image=file&label=species`, `sample:photos?crop=64`."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints
from urllib.parse import unquote

from lamina.core.errors import LaminaError
from lamina.core.text import printable

T = TypeVar("T")
_QUERY = re.compile(r"\?[A-Za-z_][\w-]*=[^?]*$")


def split_query(spec: str) -> tuple[str, str]:
    """A path or a name, and the parameters behind its last question mark; "" where there are none.

    A text that is the path of something is a path, whatever is in it. So is one whose last question mark is
    not followed by `name=`: a pattern such as `img?.png`.
    """
    found = None if os.path.lexists(spec) else _QUERY.search(spec)
    return (spec, "") if found is None else (spec[: found.start()], found[0][1:])


def query_values(query: str) -> dict[str, str]:
    """The parameters of `name=value&name=value`; %26 and the like in values stand for their characters.

    Raises:
        LaminaError: for a part without "=", or a name that is there twice.
    """
    values: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, text = part.partition("=")
        if not equals:
            raise LaminaError(f"{printable(part)!r} is no parameter; write name=value, joined by &")
        if name in values:
            raise LaminaError(f"the parameter {printable(name)!r} is given twice; give it once")
        values[name] = unquote(text, errors="surrogateescape")
    return values


def parse_query(query: str, options: type[T], what: str = "a sample") -> T:
    """A dataclass of int, bool and str fields from a text such as `crop=64&grey=1`.

    Args:
        query: the text, or "".
        options: the dataclass; fields that are no numbers take any text.
        what: what has these parameters, for errors.

    Raises:
        LaminaError: for a name that is no field, or a value of a number's field that is no whole number.
    """
    hints = get_type_hints(options)
    known = {field.name: hints[field.name] in (int, bool) for field in fields(options)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in query_values(query).items():
        if name not in known:
            raise LaminaError(f"{what} has no parameter {printable(name)!r}; take {', '.join(sorted(known))}")
        if known[name] and not text.isdecimal():
            raise LaminaError(f"{name} of {what} is a whole number, not {printable(text)!r}")
        values[name] = int(text) if known[name] else text
    return options(**values)
