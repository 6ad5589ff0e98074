"""Which options a choice switches off, declared beside their types, and refused where they are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any

from lamina.core.config import differences, marks, to_mapping
from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class ReadIf:
    """A condition on another option, under which alone a field (or a group of them) is read.

    It stands in the field's type: `hog_bins: Annotated[int, COUNT, read_if("kind", "hog")]`. With several
    conditions all of them must hold.
    """

    option: str
    """The other option, by its name in the same group or in a group around it; dotted for one in a group
    beside it, such as "encoder.frozen"."""
    values: tuple[Any, ...]
    """Its values under which the field is read, or, where `holds` is false, is not read."""
    holds: bool = True
    only: tuple[str, ...] = ()
    """Fields of a group of options that the condition is about; empty for all."""
    but: tuple[str, ...] = ()
    """Fields of a group of options that are read whatever the other option is."""

    def about(self, name: str) -> bool:
        """Whether a field of the group is subject to the condition."""
        return name not in self.but and (not self.only or name in self.only)

    def met_by(self, value: Any) -> bool:
        """Whether the field is read where the other option has that value."""
        return (value in self.values) == self.holds

    def remedy(self, option: str) -> str:
        """What would make the field count."""
        return f"give {option} {' or '.join(map(str, self.values)) if self.holds else 'another value'}"


def read_if(option: str, *values: Any, only: tuple[str, ...] = (), but: tuple[str, ...] = ()) -> ReadIf:
    """The field is read where the other option has one of these values; see `ReadIf`."""
    return ReadIf(option, values, True, only, but)


def read_unless(option: str, *values: Any) -> ReadIf:
    """The field is read where the other option has none of these values; see `ReadIf`."""
    return ReadIf(option, values, False)


@dataclass(frozen=True)
class Cause:
    """Why a field is not read: the other option with its value, and what would make the field count."""

    option: str
    value: Any
    remedy: str


def unread(options: Any) -> dict[str, Cause]:
    """The dotted names of the fields that a tree of options, as it stands, has no use for, each with the
    reason."""
    return dict(_unread([("", options)], ()))


def read_mapping(options: Any) -> dict[str, Any]:
    """`to_mapping` without the fields that are not read: what results depend on."""

    def without_unread(mapping: dict[str, Any], prefix: str) -> dict[str, Any]:
        inner = {
            k: without_unread(v, f"{prefix}{k}.") if isinstance(v, dict) else v for k, v in mapping.items()
        }
        return {name: value for name, value in inner.items() if f"{prefix}{name}" not in idle and value != {}}

    idle = unread(options)
    return without_unread(to_mapping(options), "")


def check_read(before: Any, after: Any, in_the_end: Any = None, where: str = "") -> None:
    """Refuse what was given and changes nothing; a field that was given its old value is fine.

    Args:
        before, after: the options without and with what was given together (on a command line, in a file, in
            a mapping).
        in_the_end: the options after all that was given later too. What either of the two reads is fine, so
            that `--fusion none` makes the twin of a file of options with layers to fuse.
        where: what stands before the names in the sentence.

    Raises:
        LaminaError: one line with the fields, the option that switches them off and the way out.
    """
    idle = unread(after)
    if in_the_end is not None:
        idle = {name: cause for name, cause in unread(in_the_end).items() if name in idle}
    refuse_unread({name: idle[name] for name in differences(before, after) if name in idle}, where)


def refuse_unread(found: dict[str, Cause], where: str = "") -> None:
    """Raise where there is something, with each reason once."""
    if not found:
        return
    by_cause: dict[Cause, list[str]] = {}
    for name, cause in found.items():
        by_cause.setdefault(cause, []).append(f"{where}{name}")
    raise LaminaError("; ".join(_sentence(cause, names, where) for cause, names in by_cause.items()))


def _sentence(cause: Cause, names: list[str], where: str) -> str:
    has, it = ("has", "it") if len(names) == 1 else ("have", "them")
    switch = f"{where}{cause.option} is {cause.value}"
    return f"{', '.join(names)} {has} no effect where {switch}: leave {it} out, or {cause.remedy}"


Scope = tuple[str, Any]
"""The prefix of a group's names, and the group."""


def _unread(scopes: list[Scope], outer: tuple[ReadIf, ...]) -> Iterator[tuple[str, Cause]]:
    """The unread fields of the innermost of nested groups; `outer` are conditions on it as a group."""
    prefix, group = scopes[-1]
    for name, conditions in _conditions(type(group)).items():  # type: ignore[arg-type]
        about = (*(c for c in outer if c.about(name)), *conditions)
        value = getattr(group, name)
        if is_dataclass(value):
            yield from _unread([*scopes, (f"{prefix}{name}.", value)], about)
        elif cause := _cause(scopes, about):
            yield f"{prefix}{name}", cause


def _cause(scopes: list[Scope], conditions: Iterable[ReadIf]) -> Cause | None:
    """The cause by the first condition that is not met; one on an option that no group has is met."""
    for condition in conditions:
        first, *further = condition.option.split(".")
        for prefix, group in reversed(scopes):
            if hasattr(group, first):
                value = getattr(group, first)
                for part in further:
                    value = getattr(value, part)
                if not condition.met_by(value):
                    option = f"{prefix}{condition.option}"
                    return Cause(option, value, condition.remedy(option))
                break
    return None


@cache
def _conditions(kind: type) -> dict[str, tuple[ReadIf, ...]]:
    """The conditions declared beside each field's type, by the field's name."""
    return marks(kind, ReadIf)
