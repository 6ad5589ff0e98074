"""Arguments as typed values by tyro, with its boxed messages turned into one line."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from lamina.cli.help_texts import RULES
from lamina.core.errors import LaminaError
from lamina.recipes.short_names import SHORT_NAMES

T = TypeVar("T")


def parse(what: type[T] | Callable[..., T], args: Sequence[str], prog: str, default: Any = None) -> T:
    """`tyro.cli` with its boxed message turned into one line."""
    text = io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(what, args=list(args), prog=prog, registry=RULES, **extra)  # type: ignore[no-any-return]
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise LaminaError(_one_line(text.getvalue(), prog)) from None


def parse_call(function: Callable[..., int], args: Sequence[str], prog: str) -> Callable[[], int]:
    """The function with its arguments, not called yet, so that what it prints on stderr is not taken for a
    message about arguments."""

    @functools.wraps(function)
    def later(*given: Any, **named: Any) -> Callable[[], int]:
        return functools.partial(function, *given, **named)

    return parse(later, args, prog)


def _in_words(kinds: str) -> str:
    """tyro's notation of what an option takes: {[INT [INT ...]]}|{default, odd,all}."""
    words = kinds.replace("[INT [INT ...]]", "whole numbers").replace("[FLOAT [FLOAT ...]]", "numbers")
    words = words.replace("INT INT", "two whole numbers")
    parts = [re.sub(r"\s*,\s*", ", ", part.strip("{}")) for part in words.split("|")]
    return ", or ".join(parts)


def _unboxed(box: str) -> list[str]:
    """The lines of what tyro prints in a box, in colours on a terminal; without the box and its title."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"^[│╭╰]\s?|\s*[│╮╯]$", "", line).strip() for line in plain.splitlines()]
    if "│" not in plain:  # where no box can be drawn, the title stands over a rule
        return [re.sub(r"^-+$", "─", line) for line in lines[2:]]
    body = [line for line in lines if not line.startswith(("─ ", "──")) or set(line) == {"─"}]
    return body[1:] if body and set(body[0]) == {"─"} else body


def _one_line(box: str, prog: str) -> str:
    """What tyro prints in a box, as far as its first rule."""
    body = _unboxed(box)
    end = next((i for i, line in enumerate(body) if set(line) == {"─"}), len(body))
    sentence = re.sub(r"\s+", " ", " ".join(body[:end])).strip().rstrip(".")
    sentence = re.sub(
        r"[Ee]rror parsing (--\S+): no type matching (.+?) could be instantiated from \[(.*?)\](?=\W|$)",
        lambda found: f"{found[1]} cannot be {found[3]}; it takes {_in_words(found[2])}",
        sentence,
    )
    sentence = re.sub(
        r"[Ee]rror parsing (--\S+): (?:invalid literal for int\(\) with base 10|(could not .* float)): (.*)",
        lambda found: f"{found[1]} cannot be {found[3]}; it takes a {'' if found[2] else 'whole '}number",
        sentence,
    )
    # A range is refused by the group that has the field, which does not know its own name.
    sentence = re.sub(r"^Error parsing fields\.([\w.]+): (\w+ is )", r"\1.\2", sentence)
    sentence = re.sub(r"^Error parsing fields\.[\w.]+: ", "", sentence).split(" Got errors:")[0].rstrip(".")
    return f"{sentence[:1].lower()}{sentence[1:]}; see `{prog} --help`"


def long_names(args: Sequence[str]) -> list[str]:
    """Each argument, short names as the dotted ones they stand for."""
    return [_long_name(arg) for arg in args]


def _long_name(arg: str) -> str:
    """--batch-size (or --batch-size=8) as the dotted name it stands for."""
    flag, equals, value = arg.partition("=")
    dotted = SHORT_NAMES.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
    return arg if dotted is None else f"--{dotted.replace('_', '-')}{equals}{value}"


def peek(args: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, before the arguments are parsed for good."""
    found = None
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.partition("=")[2]
    return found
