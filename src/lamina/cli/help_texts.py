"""How tyro reads a dataclass: as it does by itself, but with the help texts of `field_texts`.

tyro's own reading of a docstring begins a paragraph at each line that begins with anything but a letter, and
below a field all lines but the first begin with spaces.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from tyro.constructors import (
    MISSING,
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from lamina.core.field_texts import field_texts

RULES = ConstructorRegistry()
"""The argument `registry` of `tyro.cli`."""


@RULES.struct_rule
def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    found = []
    for field in dataclasses.fields(info.type):
        default = _default(field, info.default)
        text = partial(_text, info.type, field.name)  # called where help is shown
        found.append(StructFieldSpec(field.name, _type(hints[field.name], default), default, text))
    return StructConstructorSpec(info.type, tuple(found))


def _text(kind: type, name: str) -> str | None:
    return field_texts(kind).get(name)


def _default(field: dataclasses.Field[Any], whole: Any) -> Any:
    """A field's value in the default of the whole dataclass; its own default where there is none."""
    if whole is MISSING:
        return MISSING
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()


def _type(hint: Any, default: Any) -> Any:
    """The type of a field; that of its default in place of a type variable."""
    if get_origin(hint) is Annotated and isinstance(get_args(hint)[0], TypeVar):
        return Annotated[(type(default), *hint.__metadata__)]
    return hint
