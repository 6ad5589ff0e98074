"""Lengths of time as people write and read them."""

from __future__ import annotations

import math
import re
import time

from lamina.core.errors import LaminaError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*")


def parse_duration(text: str) -> float:
    """Seconds of a text such as 2h, 90m, 1h30m, 1.5d or 45s.

    Raises:
        LaminaError: for anything else, and for no time at all.
    """
    seconds, end = 0.0, 0
    while found := _PART.match(text.strip(), end):
        seconds, end = seconds + float(found[1]) * _UNITS[found[2]], found.end()
    if end != len(text.strip()) or not 0 < seconds < math.inf:
        raise LaminaError(
            f"{text!r} is not a length of time; give days, hours, minutes or seconds, as in 2h or 1h30m"
        )
    return seconds


def duration_text(seconds: float) -> str:
    """A length of time in one or two units: 45 s, 35 min, 2 h 10 min, 3 days 4 h."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours + (minutes >= 30)} h"
    days, hours = divmod(hours + (minutes >= 30), 24)
    return f"{days} days {hours} h" if hours and days < 10 else f"{days} days"


def clock_text(seconds_from_now: float) -> str:
    """When that is, by the clock of this machine: 23:41, or with the day where it is not within 20 hours."""
    when = time.localtime(time.time() + seconds_from_now)
    return time.strftime("%H:%M" if seconds_from_now < 20 * 3600 else "%Y-%m-%d %H:%M", when)
