"""What is known of each of many images, names and numbers, in little memory that worker processes share.

A Python list of a million objects is copied into each worker as it is read: to look at an object is to write
its count of references. Arrays are not: forked workers have the parent's, and others map the file in which an
array lies, or the memory into which torch puts it for them.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.context import get_spawning_popen
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1 << 16
"""Images that are looked at together: what is made of them on the way takes a few megabytes."""
_SHARED_BYTES = 1 << 20
"""Size from which on an array is not copied into a worker that is not forked."""
_NO_TEXT = "surrogatepass" if os.name == "nt" else "surrogateescape"
"""How what is no text in the name of a file is kept, as Python has it on this system."""


Indices = Sequence[int] | Shaped[NDArray[Any], "n"]


class SharedArray:
    """An array that is not changed, as worker processes are given it.

    Args:
        values: the array.
        file: where it is mapped from, which has this content for as long as it is there; None for memory.
        first: the first byte in that file.
    """

    def __init__(self, values: Shaped[NDArray[Any], "..."], file: str | None = None, first: int = 0) -> None:
        self.values = values
        self._tensor: Tensor | None = None
        self._place = None if file is None else (file, first, values.dtype.str, values.shape)

    @classmethod
    def mapped(cls, file: str, first: int, dtype: str, shape: tuple[int, ...]) -> SharedArray:
        """The array in a file from byte `first` on; raises OSError, and ValueError where it is too short."""
        if not np.prod(shape):
            return cls(np.empty(shape, dtype))
        return cls(np.memmap(file, dtype, "r", first, shape).view(np.ndarray), file, first)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Its place in the file; for a process that is being started, memory that torch shares with it."""
        if self._place is not None:
            return SharedArray.mapped, self._place
        if self.values.nbytes < _SHARED_BYTES or get_spawning_popen() is None:
            return SharedArray, (self.values,)
        if self._tensor is None:  # kept: the other process opens this memory some time later
            self._tensor = torch.tensor(self.values).share_memory_()  # type: ignore[no-untyped-call]
            self.values = self._tensor.numpy()
        return _of_tensor, (self._tensor,)


def _of_tensor(values: Tensor) -> SharedArray:
    return SharedArray(values.numpy())


class Numbers(Sequence[int]):
    """Whole numbers in one array; to whoever reads them, a sequence that is equal to a list of the same."""

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __init__(self, numbers: Iterable[int] | SharedArray) -> None:
        if isinstance(numbers, SharedArray):
            self._shared = numbers
        else:
            values = as_array(numbers if isinstance(numbers, Sequence | np.ndarray) else list(numbers))
            small = not len(values) or (values.min() >= -(1 << 31) and values.max() < 1 << 31)
            self._shared = SharedArray(values.astype(np.int32 if small else np.int64))

    @property
    def values(self) -> Shaped[NDArray[Any], "N"]:
        """The numbers as an array, of 32 bits each where that is enough, which must not be changed."""
        return self._shared.values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, i: int) -> int: ...
    @overload
    def __getitem__(self, i: slice) -> Numbers: ...
    def __getitem__(self, i: int | slice) -> int | Numbers:
        found = self.values[i]
        return Numbers(SharedArray(found)) if isinstance(i, slice) else int(found)

    def __iter__(self) -> Iterator[int]:
        for first in range(0, len(self), _CHUNK):
            yield from self.values[first : first + _CHUNK].tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return repr(self.values.tolist())

    def at(self, indices: Sequence[int]) -> Numbers:
        """The numbers at these places, in their order."""
        return Numbers(SharedArray(selected(self.values, indices)))


class Names(Sequence[str]):
    """Many names in one buffer, with where each of them ends.

    Args:
        names: the names; None where `text` and `ends` are given.
        text: the names in UTF-8, each with a NUL behind it.
        ends: of each name the place behind its NUL.
    """

    def __init__(
        self,
        names: Iterable[str] | None = None,
        text: SharedArray | None = None,
        ends: SharedArray | None = None,
    ) -> None:
        if names is not None or text is None or ends is None:
            content, lengths = bytearray(), array("q")
            for name in names or ():
                content += (encoded := encoded_name(name))
                lengths.append(len(encoded))
            text = SharedArray(np.frombuffer(content, np.uint8))
            ends = SharedArray(np.cumsum(np.frombuffer(lengths, np.int64)))
        self.text, self.ends = text, ends

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """The names of all parts, one after the other."""
        before = np.cumsum([0, *(len(part.text.values) for part in parts)])
        ends = [part.ends.values + shift for part, shift in zip(parts, before[:-1], strict=True)]
        text = np.concatenate([part.text.values for part in parts])
        return cls(None, SharedArray(text), SharedArray(np.concatenate(ends)))

    def __len__(self) -> int:
        return len(self.ends.values)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        i = range(len(self))[i]
        ends = self.ends.values
        start = int(ends[i - 1]) if i else 0
        return _decoded(self.text.values[start : int(ends[i]) - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        for some in chunks(range(len(self))):
            starts = self._starts(some)
            text = self.encoded(some)
            ends = np.cumsum(self.ends.values[some.start : some.stop] - starts)
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                yield _decoded(text[start : end - 1])

    def encoded(self, indices: Indices) -> bytes:
        """The names at these places in UTF-8, each with a NUL behind it."""
        if not len(indices):
            return b""
        starts = self._starts(indices)
        if isinstance(indices, range) and indices.step == 1:
            return bytes(self.text.values[starts[0] : self.ends.values[indices.stop - 1]])
        lengths = self.ends.values[as_array(indices)] - starts
        shifts = starts - np.concatenate([[0], np.cumsum(lengths[:-1])])
        return bytes(self.text.values[np.repeat(shifts, lengths) + np.arange(lengths.sum())])

    def at(self, indices: Indices) -> Names:
        """The names at these places, in their order."""
        ends = np.cumsum(self.ends.values[as_array(indices)] - self._starts(indices), dtype=np.int64)
        text = b"".join(map(self.encoded, chunks(indices)))
        return Names(text=SharedArray(np.frombuffer(text, np.uint8)), ends=SharedArray(ends))

    def _starts(self, indices: Indices) -> Int64[NDArray[np.int64], "n"]:
        places = as_array(indices)
        ends = self.ends.values
        return np.where(places > 0, ends[places - 1], 0)


def as_array(numbers: Indices) -> Shaped[NDArray[Any], "n"]:
    """Whole numbers as an array; a range is not gone through one by one."""
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step)
    if isinstance(numbers, Numbers):
        return numbers.values
    return np.asarray(numbers, np.int64)


def selected(values: Shaped[NDArray[Any], "N *k"], indices: Indices) -> Shaped[NDArray[Any], "n *k"]:
    """The rows of an array at these places, in their order; of a range without a copy."""
    if isinstance(indices, range) and indices.step == 1 and indices.start >= 0:
        return values[indices.start : indices.stop]
    found: Shaped[NDArray[Any], "n *k"] = values[as_array(indices)]
    return found


def chunks(indices: Indices) -> Iterator[Any]:
    """The indices, some at a time."""
    for first in range(0, len(indices), _CHUNK):
        yield indices[first : first + _CHUNK]


def encoded_name(name: str) -> bytes:
    """A name in UTF-8 with a NUL behind it, by which names in a row can be told apart."""
    return name.encode("utf-8", _NO_TEXT) + b"\0"


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", _NO_TEXT)
