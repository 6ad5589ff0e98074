"""What a path says of how its images are read: `scans/?scale=-1024:3071`, in the place of options."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.options import AS_STORED, DataOptions, Decoding
from lamina.data.query import query_values, split_query
from lamina.data.value_range import number_text, value_range_text

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
        given = {name: self.given[option] for name, option in _OPTIONS.items() if option in self.given}
        texts = {n: number_text(v) if isinstance(v, float) else v for n, v in given.items()}
        return "&".join(f"{name}={text}" for name, text in texts.items())

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
        for name, value in self._decoded.items():
            present = getattr(how, name)
            if present not in (value, getattr(AS_STORED, name)):
                text = value_range_text(present) if isinstance(present, tuple) else present
                raise _conflict(name, self.given[name], text)
        return replace(how, **self._decoded)

    @cached_property
    def _decoded(self) -> dict[str, Any]:
        """`given` as fields of `Decoding`: made once, since each image is asked for with them."""
        asked = DataOptions(**self.given).decoding(None)
        return {name: getattr(asked, name) for name in self.given}


_UNSET = {name: getattr(DataOptions(), name) for name in _OPTIONS.values()}


def _conflict(option: str, given: Any, own: Any) -> LaminaError:
    parameter = next(name for name, o in _OPTIONS.items() if o == option)
    return LaminaError(
        f"the path says {parameter}={given}, and these images are to be read with data.{option} {own}, as "
        f"options or the model's run have it; leave {parameter}= out of the path, or give the same"
    )


def split_reading(spec: str) -> tuple[str, Reading | None]:
    """A path or a name without what it says of how its images are read; and that, where it says anything.

    Parameters of other names stay where they are.

    Raises:
        LaminaError: for a value that is not possible.
    """
    name, query = split_query(spec)
    parts = query.split("&")
    own = [part for part in parts if part.partition("=")[0] in _OPTIONS]
    if not own:
        return spec, None
    found = {_OPTIONS[key]: value for key, value in query_values("&".join(own)).items()}
    if found.get("pages", "first") not in ("first", "channels"):
        raise LaminaError(f"pages={printable(found['pages'])} is not possible; take first or channels")
    checked = DataOptions(**found)  # type: ignore[arg-type]  # which makes numbers of texts
    rest = "&".join(part for part in parts if part not in own)
    reading = Reading(**{option: getattr(checked, option) for option in found})
    return f"{name}?{rest}" if rest else name, reading
