"""Foreign text (file names, class names, what other tools wrote) made safe to print and to tabulate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

NO_VALUE = "\N{EN DASH}"
"""In a cell of a table that has no value."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_URL = re.compile(r"""(https?://)(?:[^\s/@'"]*@)?([^\s?'"]+)(\?[^\s'"]*)?""", re.IGNORECASE)
"""An address in a text: its protocol, a user and a password, the path, and what it is asked with."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Text without what could confuse a terminal, a log, JSON or a page: such characters as escapes.

    These are control characters (escape sequences begin with one), marks of direction and other characters
    without a shape, line separators, surrogates, and unassigned ones. Spaces of all widths stay. Of addresses
    in the web it leaves out what may be secret (`without_secrets`).
    """
    text = without_secrets(str(text)).encode("utf-8", "backslashreplace").decode()
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN else c for c in text
    )


def without_secrets(text: str) -> str:
    """Text with `?...` in place of the query of each address in the web, which may be a signature that opens
    a file for whoever reads it, and without a user and a password before the host."""
    return _URL.sub(lambda found: f"{found[1]}{found[2]}{'?...' if found[3] else ''}", text)


def printable_lines(text: str) -> str:
    """As `printable`, but with the line ends that are there."""
    return "\n".join(printable(line) for line in text.split("\n"))


def counted(n: int, what: str, several: str = "") -> str:
    """A number and its noun: "1 file", "2 files"; `several` is the plural where it is not formed by an s."""
    return f"{n} {what if n == 1 else several or what + 's'}"


def counted_share(n: int, of: int, what: str) -> str:
    """A part of some things, also in per cent: "1,024 of 4,096 values (25 %)"; "" where there are none."""
    return f"{n:,} of {of:,} {what} ({100 * n / of:.3g} %)" if of else ""


def counted_each(counts: Mapping[str, int]) -> str:
    """How often each of some things is there, the most frequent first: "3 empty file, 1 missing"."""
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items(), key=lambda item: -item[1]))


def some_of(names: Iterable[str], most: int = 12) -> str:
    """The first of some names, safe to print, and how many more there are: "a, b and 3 more"."""
    names = list(names)
    left = len(names) - most
    return ", ".join(map(printable, names[:most])) + (f" and {left} more" if left > 0 else "")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown: a line for the header, one of dashes, and one for each row."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before a first = + - @, tab or return."""
    return f"'{text}" if text.startswith(_FORMULA) else text
