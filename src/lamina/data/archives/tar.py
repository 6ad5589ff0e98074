"""What a tar file holds, by one walk over its headers: the images, where they lie, and what is said of them.

Members are never unpacked, so their names can do no harm; what is not a plain file is never followed.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, field
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import ending, is_image_name
from lamina.data.found import PassedOver

_MOST_HEADER_BYTES = 1 << 20
"""A header with a long name or extended attributes is far smaller."""
_MOST_LABEL_BYTES = 256
_BLOCK = tarfile.BLOCKSIZE
_MACOS = "__MACOSX"


@dataclass
class TarMembers:
    """The images of one tar file, in the order of the file."""

    names: list[str] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    """First byte of each image."""
    sizes: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """The text of the .cls file beside each image (webdataset); "" where there is none."""
    passed_over: PassedOver = field(default_factory=PassedOver)


def read_members(path: str) -> TarMembers:
    """The images of a tar file; a few bytes are read for each member.

    Raises:
        LaminaError: where it cannot be read, or is not one whole tar file from its first byte to its last.
    """
    try:
        with open(path, "rb") as file:
            walk = _Walk(path, _Headers(file))
            walk.members()
    except OSError as error:
        raise LaminaError(f"cannot read {printable(path)}: {error.strerror or error}") from None
    return walk.result()


class _Headers:
    """A file for tarfile that gives no more than a header has: one that announces gigabytes is refused."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        content: bytes = self._file.read(size)
        return content


class _Walk:
    """One walk over the members."""

    def __init__(self, path: str, file: _Headers) -> None:
        self.path, self.file = path, file
        self.length = os.path.getsize(path)
        self.images: dict[str, tuple[int, int]] = {}
        self.texts: dict[str, str] = {}
        self.passed_over = PassedOver()

    def members(self) -> None:
        """Take in all members, and see that the file ends where they do."""
        try:
            with tarfile.open(fileobj=self.file, mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
                place = -1
                while (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile keeps them all
                    if tar.offset <= place:
                        raise tarfile.ReadError(f"a member at byte {member.offset} that points backwards")
                    place = tar.offset
                    self._take(member)
                self._check_end(tar.offset)
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise self._not_whole(" ".join(str(error).split()) or type(error).__name__) from None

    def _take(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        if member.size < 0 or (member.isreg() and member.offset_data + member.size > self.length):
            raise self._not_whole(f"it ends within {member.name!r}")
        parts = member.name.split("/")
        base = parts[-1]
        if parts[0] == _MACOS or any(part.startswith(".") and part not in (".", "..") for part in parts):
            self.passed_over.hidden += is_image_name(base.lstrip("."))
        elif not member.isreg() or member.issparse():
            self.passed_over.no_files += 1
        elif is_image_name(base):
            name = "/".join(part for part in parts if part not in ("", "."))
            self.passed_over.replaced += name in self.images
            self.images[name] = (member.offset_data, member.size)
        elif ending(base) == ".cls" and member.size <= _MOST_LABEL_BYTES:
            self.file.seek(member.offset_data)
            text = self.file.read(member.size).decode("utf-8", "surrogateescape")
            self.texts[_key(member.name)] = text.strip()
        else:
            self.passed_over.endings[ending(base)] += 1

    def _check_end(self, place: int) -> None:
        """Where tarfile finds no further header there have to be zeros, to the end of the file."""
        self.file.seek(place)
        block = self.file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise self._not_whole("its end is missing")
        while block:
            if block.strip(b"\0"):
                raise self._not_whole(f"no member begins at byte {place}, and yet there is content")
            place += len(block)
            block = self.file.read(_MOST_HEADER_BYTES)

    def _not_whole(self, why: str) -> LaminaError:
        return LaminaError(
            f"{printable(self.path)} is no whole tar file ({printable(why)}); copy or download it again, or "
            "make it anew with `tar -cf`"
        )

    def result(self) -> TarMembers:
        """What was found."""
        return TarMembers(
            list(self.images),
            [first for first, _ in self.images.values()],
            [size for _, size in self.images.values()],
            [self.texts.get(_key(name), "") for name in self.images],
            self.passed_over,
        )


def _key(name: str) -> str:
    """What webdataset's members of one sample have in common: the path up to the first dot of the file's
    name."""
    folder, _, base = name.rpartition("/")
    clean = "/".join(part for part in folder.split("/") if part not in ("", "."))
    return f"{clean}/{base.partition('.')[0]}"
