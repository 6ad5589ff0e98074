"""What a path says of how its images are read: `scans/?scale=-1024:3071`, in the place of options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.decode import Decoded
from lamina.data.decode.limits import Stream
from lamina.data.options import AS_STORED, DataOptions, Decoding
from lamina.data.query import query_text, query_values, split_query
from lamina.data.sources import Source

_OPTIONS = {"pages": "pages", "scale": "value_range", "nodata": "nodata"}
"""The parameter of a path for each option in the group `data`."""


@dataclass(frozen=True)
class Reading:
    """What a path says in the place of options: those of `DataOptions`, None where it says nothing."""

    pages: Any = None
    value_range: Any = None
    nodata: Any = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that the path gives."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def __str__(self) -> str:
        """As the path has it."""
        return "&".join(f"{name}={self.given[o]}" for name, o in _OPTIONS.items() if o in self.given)

    def completed(self, options: DataOptions) -> DataOptions:
        """The options with what the path gives.

        Raises:
            LaminaError: where they say something else.
        """
        for name, value in self.given.items():
            own = getattr(options, name)
            if own not in (value, _UNSET[name]):
                raise _conflict(name, value, own)
        return replace(options, **self.given)

    def applied(self, how: Decoding) -> Decoding:
        """The same for what a source is asked for."""
        asked, own = DataOptions(**self.given).decoding(None), {}
        for name in self.given:
            own[name], present = getattr(asked, name), getattr(how, name)
            if present not in (own[name], getattr(AS_STORED, name)):
                raise _conflict(name, self.given[name], present)
        return replace(how, **own)


_UNSET = {name: getattr(DataOptions(), name) for name in _OPTIONS.values()}


def _conflict(option: str, given: Any, own: Any) -> LaminaError:
    parameter = next(name for name, o in _OPTIONS.items() if o == option)
    return LaminaError(
        f"the path says {parameter}={given}, and these images are to be read with data.{option} {own}, as the "
        f"options or the model's run have it; leave {parameter}= out of the path, or give the same"
    )


def split_reading(spec: str) -> tuple[str, Reading | None]:
    """A path or a name without what it says of how its images are read; and that, where it says anything.

    Parameters of other names stay where they are.

    Raises:
        LaminaError: for a value that is not possible.
    """
    name, query = split_query(spec)
    values = query_values(query)
    found = {_OPTIONS[key]: values.pop(key) for key in tuple(values) if key in _OPTIONS}
    if not found:
        return spec, None
    if found.get("pages", "first") not in ("first", "channels"):
        raise LaminaError(f"pages={printable(found['pages'])} is not possible; take first or channels")
    checked = DataOptions(**found)  # type: ignore[arg-type]  # which makes numbers of texts
    return name + query_text(values), Reading(**{option: getattr(checked, option) for option in found})


class ReadAs(Source):
    """The images of another source, read as a path says.

    Reading them with other options than those raises `LaminaError`.
    """

    def __init__(self, source: Source, reading: Reading) -> None:
        note = f"images are read with {reading}, as the path says"
        super().__init__(
            (), source.labels, source.class_names, notes=(*source.notes, note), no_labels=source.no_labels
        )
        self.source, self.reading = source, reading

    def __len__(self) -> int:
        return len(self.source)

    def name(self, i: int) -> str:
        """As of the source."""
        return self.source.name(i)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """As of the source, read as the path says."""
        return self.source.inspect(i, self.reading.applied(how))

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """As of the source, read as the path says."""
        return self.source.size(i, self.reading.applied(how))

    def open(self, i: int) -> Stream | None:
        """As of the source."""
        return self.source.open(i)

    def fingerprint(self, indices: Sequence[int]) -> bytes | None:
        """As of the source, with what the path says."""
        return self._with_reading(self.source.fingerprint(indices))

    def content(self, indices: Sequence[int]) -> bytes | None:
        """As of the source, with what the path says."""
        return self._with_reading(self.source.content(indices))

    def _with_reading(self, known: bytes | None) -> bytes | None:
        return None if known is None else known + str(self.reading).encode()


def read_as(options: DataOptions, source: Source) -> DataOptions:
    """The options with what the path of the images says of how they are read.

    Raises:
        LaminaError: where the two say different things.
    """
    return options if source.reading is None else source.reading.completed(options)
