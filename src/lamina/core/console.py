"""The console that everything is printed through: colours and tables are ours, text means only itself."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from lamina.core.text import printable_lines


def make_console(
    *, stderr: bool = False, file: TextIO | None = None, soft_wrap: bool = False, width: int | None = None
) -> Console:
    """A rich console on which names and messages of others cannot move the cursor, colour or reorder text."""
    console = Console(stderr=stderr, file=file, soft_wrap=soft_wrap, width=width, highlight=False)
    console.push_render_hook(_PlainText(console))
    return console


class _PlainText(RenderHook):
    """Wraps whatever is printed in `_Escaped`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(self._console, each) for each in renderables]


class _Escaped:
    """What another renderable shows, its text as `printable`; control codes of rich's own stay."""

    def __init__(self, console: Console, inner: ConsoleRenderable) -> None:
        self._console, self._inner = console, inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in self._console.render(self._inner, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)
