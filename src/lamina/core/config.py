"""A tree of frozen dataclasses as plain mappings and back, with every value checked against its type."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from lamina.core.errors import LaminaError, RangeError

T = TypeVar("T")


class Formerly(NamedTuple):
    """Declared beside a field's type: the name that files of earlier versions have for it."""

    name: str


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6, where: str = "") -> str:
    """The question "did you mean X? " with the most similar of the known names and `where` before it; empty
    where the similarity of none is `cutoff`, a share between 0 and 1, or more."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {where}{near[0]}? " if near else ""


def to_mapping(options: Any) -> dict[str, Any]:
    """Nested dictionaries of numbers, strings, booleans, lists and None: what YAML and JSON can hold."""
    plain: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        plain[field.name] = to_mapping(value) if is_dataclass(value) else _plain(value)
    return plain


def merge(options: T, mapping: Mapping[str, Any], where: str = "") -> T:
    """`options` with the fields in `mapping` replaced, at any depth.

    Raises:
        LaminaError: for a name that is no field, or a value that is not of the field's type.
    """
    kind: Any = type(options)
    hints, former = get_type_hints(kind), _former_names(kind)
    changes: dict[str, Any] = {}
    for given, value in mapping.items():
        name = former.get(given, given)
        if name not in hints:
            hint = did_you_mean(str(name), hints, where=where).rstrip() or f"there are: {', '.join(hints)}"
            raise LaminaError(f"{where}{name} is not an option; {hint}")
        current = getattr(options, name)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise LaminaError(f"{where}{name} is a group of options; give a mapping, not {value!r}")
            changes[name] = merge(current, value, f"{where}{name}.")
        else:
            changes[name] = _coerce(value, hints[name], f"{where}{name}")
    try:
        return replace(options, **changes)  # type: ignore[type-var]
    except RangeError as error:
        raise RangeError(f"{where}{error}") from None


def current_names(mapping: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """A mapping of options of that dataclass, at any depth, with the names that its fields have now."""
    hints, former = get_type_hints(kind), _former_names(kind)
    found = {}
    for given, value in mapping.items():
        name = former.get(given, given)
        inner = hints.get(name)
        if isinstance(value, Mapping) and isinstance(inner, type) and is_dataclass(inner):
            value = current_names(value, inner)
        found[name] = value
    return found


@cache
def _former_names(kind: Any) -> dict[str, str]:
    """The names of now by the former ones."""
    return {mark.name: name for name, found in marks(kind, Formerly).items() for mark in found}


def marks(kind: Any, mark: type[T]) -> dict[str, tuple[T, ...]]:
    """What of the type `mark` is declared beside the type of each field of a dataclass (`Annotated`), by the
    field's name."""
    hints = get_type_hints(kind, include_extras=True)
    beside = {name: getattr(hints[name], "__metadata__", ()) for name in (f.name for f in fields(kind))}
    return {name: tuple(each for each in found if isinstance(each, mark)) for name, found in beside.items()}


def differences(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted names of the fields in which two trees differ, each with both values."""
    left, right = flatten(to_mapping(a)), flatten(to_mapping(b))
    return {k: (left.get(k), right.get(k)) for k in [*left, *right] if left.get(k) != right.get(k)}


def describe_changes(before: Any, after: Any, but: Iterable[str] = ()) -> str:
    """The fields in which `after` differs, with its values: "c 1 10, validation_share 0.5"; "" for none.

    Args:
        before, after: two trees of one kind.
        but: dotted names of fields that do not count.
    """
    changes = {name: new for name, (_, new) in differences(before, after).items() if name not in set(but)}
    return ", ".join(f"{name} {in_words(value)}" for name, value in changes.items())


def in_words(value: Any) -> str:
    """A field's value, as in `to_mapping`, as text."""
    if isinstance(value, list):
        return " ".join(map(in_words, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def with_fields(options: T, fields: Mapping[str, Any]) -> T:
    """`options` with fields set by their dotted names; raises as `merge` does."""
    for dotted, value in fields.items():
        *groups, name = dotted.split(".")
        nested: dict[str, Any] = {name: value}
        for group in reversed(groups):
            nested = {group: nested}
        options = merge(options, nested)
    return options


def flatten(mapping: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        flat |= flatten(value, f"{where}{name}.") if isinstance(value, Mapping) else {f"{where}{name}": value}
    return flat


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _coerce(value: Any, hint: Any, name: str) -> Any:
    for kind in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        ok, result = _match(value, kind)
        if ok:
            return result
    raise LaminaError(f"{name} cannot be {value!r}; it is {_describe(hint)}")


def _match(value: Any, kind: Any) -> tuple[bool, Any]:
    if get_origin(kind) is Literal:
        return value in get_args(kind), value
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, list | tuple):
            return False, None
        kinds = (inner[0],) * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
        pairs = [_match(v, k) for v, k in zip(value, kinds, strict=False)]
        return len(kinds) == len(value) and all(ok for ok, _ in pairs), tuple(v for _, v in pairs)
    if kind is type(None) or kind is None:
        return value is None, None
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number, float(value) if is_number else None
    if kind is int:
        if isinstance(value, float) and value.is_integer():  # YAML's 1e5
            return True, int(value)
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, kind), value


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(k) for k in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of " + ", ".join("..." if k is Ellipsis else _describe(k) for k in get_args(hint))
    names = {type(None): "null", float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))
