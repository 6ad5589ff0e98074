"""Which columns of a dataset are its images and its classes: by their types, or by names that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable, some_of
from lamina.data.huggingface.spec import Named

_LABEL = "label"


def image_column(features: Any, named: Named) -> str:
    """The column of the images: the only one whose type is that of encoded images, or the one that is named,
    which may hold the bytes or the paths of files as well.

    Raises:
        LaminaError: where there is none, or several and none is named, or the one named is no column of them.
    """
    wanted = named.options.image
    if wanted:
        _check_known(features, wanted, "image", named)
        if not _is_image(features[wanted]) and _type(features[wanted]) not in _ENCODED:
            raise LaminaError(
                f"the column {printable(wanted)} of {named.spec} has values of {_type(features[wanted])}; "
                "images are encoded files: name a column of type Image, or one of bytes or paths"
            )
        return wanted
    found: list[str] = [name for name, feature in features.items() if _is_image(feature)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LaminaError(
            f"{named.spec} has no column of type Image, but {some_of(features)}; name one of bytes or paths "
            "by ?image=..."
        )
    raise LaminaError(f"{named.spec} has several columns of images: {some_of(found)}; name one by ?image=...")


@dataclass(frozen=True)
class Classes:
    """The class of each image of some splits, or why there is none."""

    labels: list[int] | None
    names: tuple[str, ...] = ()
    why_none: str = ""
    of_splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The name of the class of each image of a split; of the splits in which every image has one. It is the
    same for a split whichever others are opened with it."""


def classes_of(
    tables: Mapping[str, Any], chosen: Sequence[str], parts: Sequence[str], named: Named
) -> Classes:
    """The classes of the images of the `chosen` splits, one after the other.

    The column is the one that is named, or "label", or the only one of type ClassLabel. A class is a name of
    that type, or, of texts and whole numbers, each value that is in the chosen splits or in `parts`, those of
    the training and the held-out part.

    Raises:
        LaminaError: where the column that is named is not there, or has no classes.
    """
    features = tables[chosen[0]].features
    column, why = _label_column(features, named)
    if column is None:
        return Classes(None, why_none=why)
    cells = {name: tables[name].data.column(column).to_pylist() for name in dict.fromkeys((*chosen, *parts))}
    stated = getattr(features[column], "names", None)
    known = _distinct(cells.values()) if stated is None else range(len(stated))
    several = len(known if stated is not None else _distinct(cells[name] for name in parts)) > 1
    number = {value: i for i, value in enumerate(known)}
    labels = {name: [number.get(value, -1) for value in cells[name]] for name in chosen}
    texts, shown = tuple(map(str, known if stated is None else stated)), printable(column)
    whole = [name for name in chosen if several and -1 not in labels[name]]
    of_splits = {name: [texts[label] for label in labels[name]] for name in whole}
    joined = list(chain.from_iterable(labels.values()))
    if missing := joined.count(-1):
        why = f"{missing} of {counted(len(joined), 'image')} have no class in the column {shown}"
        return Classes(None, why_none=why, of_splits=of_splits)
    if len(texts) < 2:
        return Classes(None, why_none=f"all images have one class in the column {shown}")
    return Classes(joined, texts, of_splits=of_splits)


def _label_column(features: Any, named: Named) -> tuple[str | None, str]:
    wanted = named.options.label
    if wanted:
        _check_known(features, wanted, "label", named)
        if not _has_classes(features[wanted]):
            raise LaminaError(
                f"the column {printable(wanted)} of {named.spec} has values of {_type(features[wanted])}; "
                "classes are of type ClassLabel, texts or whole numbers"
            )
        return wanted, ""
    if _LABEL in features and _has_classes(features[_LABEL]):
        return _LABEL, ""
    found: list[str] = [name for name, feature in features.items() if _type(feature) == "ClassLabel"]
    if len(found) == 1:
        return found[0], ""
    if found:
        return None, f"the dataset has several columns of classes, {some_of(found)}; name one by ?label=..."
    return (
        None,
        "the dataset has no column of type ClassLabel; name one of texts or whole numbers by ?label=...",
    )


def _distinct(columns: Iterable[Sequence[Any]]) -> list[Any]:
    """Values that are a class each, sorted; what is empty is none."""
    return sorted({value for value in chain.from_iterable(columns) if value not in (None, "")})


def _check_known(features: Any, name: str, parameter: str, named: Named) -> None:
    if name not in features:
        raise LaminaError(
            f"{named.spec} has no column {printable(name)!r} for {parameter}=; it has {some_of(features)}"
        )


_ENCODED = ("binary", "large_binary", "string", "large_string")
_TEXTS = ("string", "large_string")


def _type(feature: Any) -> str:
    """The type of a column's values: of plain values Arrow's name for it."""
    dtype = getattr(feature, "dtype", None)
    return dtype if type(feature).__name__ == "Value" and isinstance(dtype, str) else type(feature).__name__


def _is_image(feature: Any) -> bool:
    """Whether a column has encoded images: of the type Image, or the bytes and paths that this type has where
    nothing says what they are."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"} and _type(feature["bytes"]) in _ENCODED[:2]
    return _type(feature) == "Image"


def _has_classes(feature: Any) -> bool:
    kind = _type(feature)
    return kind in ("ClassLabel", "bool", *_TEXTS) or kind.startswith(("int", "uint"))
