"""Numbers and names as text for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from lamina.core.text import NO_VALUE, printable

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def visible(text: object, limit: int = 200) -> str:
    """A name with nothing hidden in it: control, direction and invalid characters are spelled out.

    So a file name can neither reorder the text around it nor break the page's encoding. Names longer
    than `limit` are cut in the middle. HTML is escaped by the templates, not here.
    """
    shown = printable(str(text))
    half = limit // 2 - 1
    return shown if len(shown) <= limit else f"{shown[:half]} … {shown[-half:]}"


def number(value: object) -> str:
    """A number with about three significant digits: 12 400, 0.0712, 1.5 × 10⁻⁴; a dash for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NO_VALUE
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (abs(value) >= 1000 and value == int(value)):
        return count(int(value))
    if abs(value) < 1e-290:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent >= 5 or exponent < -3:
        return _scientific(value, exponent)
    text = f"{value:.{max(0, 2 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scientific(value: float, exponent: int) -> str:
    mantissa = f"{value / 10**exponent:.2f}".rstrip("0").rstrip(".")
    power = power_of_ten(exponent)
    return power if mantissa == "1" else f"{mantissa} {TIMES} {power}"


def power_of_ten(exponent: int) -> str:
    """10 with a raised exponent."""
    return f"10{str(exponent).translate(_SUPERSCRIPT)}"


def count(value: int) -> str:
    """An integer with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def percent(share: float | None, digits: int = 1) -> str:
    """0.7134 as 71.3 %; a dash for None."""
    return NO_VALUE if share is None else f"{100 * share:.{digits}f}\u202f%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    sign = MINUS if difference < 0 else "+"
    return f"{sign}{abs(100 * difference):.1f}"


def moment(timestamp: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    when = datetime.fromtimestamp(timestamp, UTC)
    return f"{when.day} {when:%B %Y, %H:%M:%S} UTC"


def setting(value: object) -> str:
    """A value of a recipe as text; a list as its items."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(setting(item) for item in value) or NO_VALUE
    return visible(value, limit=400)
