"""The range of each option, written beside its type and checked whichever way an option is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lamina.core.config import marks
from lamina.core.errors import LaminaError, RangeError


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both of them included unless they are left `open`; NaN is never one of
    them, nor is an infinity."""

    least: float
    most: float = math.inf
    open_below: bool = False
    open_above: bool = False

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        over = value > self.least if self.open_below else value >= self.least
        return over and (value < self.most if self.open_above else value <= self.most)

    def __str__(self) -> str:
        least, most = _number(self.least), _number(self.most)
        if self.most == math.inf:
            return f"above {least}" if self.open_below else f"{least} or more"
        low = f"above {least} and" if self.open_below else f"from {least}"
        high = f"below {most}" if self.open_above else most
        if self.open_below:
            return f"{low} {high}" if self.open_above else f"{low} at most {high}"
        return f"{low} to {high}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_below=True)
SHARE = Range(0, 1)
"""With 0 and 1, as a probability."""
SHARE_ABOVE_0 = Range(0, 1, open_below=True)
SHARE_BELOW_1 = Range(0, 1, open_above=True)
SHARE_BETWEEN = Range(0, 1, open_below=True, open_above=True)
SEED = Range(0, 2**63 - 1)


class RangeChecked:
    """A base of dataclasses whose numbers are checked as they are made; see `check_ranges`."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


def check_blocks(name: str, blocks: Sequence[int], depth: int) -> None:
    """Raise `LaminaError` where a network of `depth` blocks lacks one of `blocks`, which are counted from 0;
    `name` is that of the option."""
    if not all(0 <= block < depth for block in blocks):
        given = " ".join(map(str, blocks))
        raise LaminaError(f"{name} {given} cannot be read: the encoder has blocks 0 to {depth - 1}")


def check_ranges(options: Any) -> None:
    """Check every field of a dataclass whose type is `Annotated[..., Range]`; of a tuple each number. Call
    it in `__post_init__`, which runs for values of the command line, of a YAML file and of Python alike.

    None stands for no number, and so does text where the type takes text (such as "auto").

    Raises:
        RangeError: one line with the option, its value and its range.
    """
    for name, (allowed, takes_text) in _ranges(type(options)).items():  # type: ignore[arg-type]
        value = getattr(options, name)
        if value is None or (takes_text and isinstance(value, str)):
            continue
        several = isinstance(value, tuple | list)
        for number in value if several else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float) or number not in allowed:
                each = "each of its numbers must be" if several else "it must be"
                raise RangeError(f"{name} is {value!r}; {each} {_finite(number, allowed)}{allowed}")


@cache
def _ranges(kind: type) -> dict[str, tuple[Range, bool]]:
    """The range of each field by its name, and whether its type takes text too."""
    hints, found = get_type_hints(kind), {}
    for name, allowed in marks(kind, Range).items():
        if allowed:
            parts = (hints[name], *get_args(hints[name]))
            text = any(part is str or get_origin(part) is Literal for part in parts)
            found[name] = allowed[0], text
    return found


def _finite(number: Any, allowed: Range) -> str:
    """What the words of a range without an upper end leave out, where that is what is wrong."""
    infinite = isinstance(number, float) and not math.isfinite(number)
    return "a finite number, " if infinite and allowed.most == math.inf else ""


def _number(value: float) -> str:
    if value == 2**63 - 1:
        return "2**63 - 1"
    return str(value) if isinstance(value, int) else f"{value:g}"
