"""Flags that were renamed: the old name works in this version, with one line that names the new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

RENAMED = (
    ("evaluate knn", "--encoder", "--network"),
    ("evaluate linear", "--encoder", "--network"),
    ("embed", "--encoder", "--network"),
    ("analyze", "--encoder", "--network"),
    ("analyze hessian", "--power", "--power-iterations"),
    ("analyze patches", "--shown", "--num-shown"),
    ("evaluate knn", "--chosen-on", "--selection-samples"),
    ("evaluate fewshot", "--by", "--classifier"),
    ("evaluate segment", "--window.at-once", "--window.batch-size"),
    ("evaluate segment", "--window.longest", "--window.max-side"),
    ("evaluate segment", "--window.most-of-one-class", "--window.max-class-share"),
    ("evaluate detect", "--window.at-once", "--window.batch-size"),
    ("study", "--bank", "--num-train"),
    ("study", "--test", "--num-test"),
)
"""The first words of the verbs that have the flag, its old name and its new one."""


def with_new_flags(verb: str, args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a verb with new names of flags in place of old ones, and a sentence on each."""
    renamed = {old: new for words, old, new in RENAMED if f"{verb} ".startswith(f"{words} ")}
    found = dict.fromkeys(flag for flag in map(_flag, args) if flag in renamed)
    notes = [f"{old} is now called {renamed[old]}; the next version will refuse {old}" for old in found]
    return list(_replaced(args, renamed)), notes


def _flag(arg: str) -> str:
    """The name of a flag as it is listed: without a value, words joined by dashes."""
    return arg.partition("=")[0].replace("_", "-")


def _replaced(args: Sequence[str], renamed: dict[str, str]) -> Iterator[str]:
    for arg in args:
        new = renamed.get(_flag(arg))
        yield arg if new is None else new + "".join(arg.partition("=")[1:])
