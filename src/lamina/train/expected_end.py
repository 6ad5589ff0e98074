"""When a run is expected to end, by the steps that it has taken."""

from __future__ import annotations

from lamina.core.durations import clock_text, duration_text

FIRST_STEPS, FIRST_SECONDS = 20, 30.0
"""The end is said after so many steps, or after so many seconds with a few of them."""
FEWEST_STEPS = 3
CHANGE = 0.2
"""It is said again where the time that is left is longer or shorter by this share than was said."""
WORTH_SECONDS = 60.0
"""Nothing is said of less time than this."""


class ExpectedEnd:
    """Knows when each step ended; the first one, in which libraries are loaded and compiled, is not counted.

    Args:
        total_steps: length of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._start: tuple[int, float] | None = None
        self._told: float | None = None

    def after(self, step: int, now: float) -> str | None:
        """A sentence, where there is something to say after this step; `now` is in seconds of any clock."""
        if self._start is None:
            self._start = (step, now)
            return None
        begun, since = self._start
        taken, left = step - begun, self._total - step
        if taken < FIRST_STEPS and (now - since < FIRST_SECONDS or taken < FEWEST_STEPS):
            return None
        each = (now - since) / taken
        seconds = left * each
        if seconds < WORTH_SECONDS:
            return None
        again = self._told is not None
        if self._told is not None and abs(now + seconds - self._told) <= CHANGE * (self._told - since):
            return None
        self._told = now + seconds
        return (
            f"{'now ' if again else ''}expected to end at {clock_text(seconds)}, in "
            f"{duration_text(seconds)}: a step takes {each:.3g} s"
        )
