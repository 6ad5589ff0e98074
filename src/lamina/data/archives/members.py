"""What an archive holds that is of use: the images, where they lie, and what is said of them beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from lamina.data.file_names import ending, is_image_name
from lamina.data.found import PassedOver

_MACOS = "__MACOSX"
_MOST_TEXT_BYTES = {".cls": 256, ".json": 1 << 20}
"""Endings of files that may say the class of an image, and how large they may be; larger ones say none."""
_JSON_KEYS = ("label", "cls")

PLAIN = -1
"""The packing of an image whose bytes lie in the archive as they are, from the first one on."""


class Place(NamedTuple):
    """Where an image lies in an archive, and how it is packed there."""

    first: int
    """First byte: of the image where it is `PLAIN`, of the member's own header in a zip file."""
    stored: int
    """Number of bytes in the archive, without a header."""
    packing: int = PLAIN
    """`PLAIN`, or the method of a zip file's member (`zip.packing_of`)."""
    size: int = 0
    """Number of bytes when unpacked; of no use where it is `PLAIN`."""
    crc: int = 0
    """CRC-32 of the unpacked bytes, as a zip file states it."""


@dataclass
class Members:
    """The images of one archive, in the order in which it lists them."""

    names: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """What a file beside each image says of its class (webdataset); "" where there is none."""
    passed_over: PassedOver = field(default_factory=PassedOver)


class Collector:
    """Takes the members of an archive one by one, by the rules that all kinds of archives have."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._texts: dict[str, str] = {}
        self._passed_over = PassedOver()

    def take(
        self, name: str, plain_file: bool, place: Place, size: int, content: Callable[[], bytes] | None
    ) -> None:
        """One member that is no folder.

        Args:
            name: its path in the archive, with "/" between folders.
            plain_file: whether it is a file that has all its bytes here: no link, no device.
            place: where it lies.
            size: its number of bytes, unpacked.
            content: reads them; called for small files that may say a class. None: no file says one.
        """
        name = name.replace("\0", "\ufffd")
        parts = name.split("/")
        base = parts[-1]
        if parts[0] == _MACOS or any(part.startswith(".") and part not in (".", "..") for part in parts):
            self._passed_over.hidden += is_image_name(base.lstrip("."))
        elif not plain_file:
            self._passed_over.no_files += 1
        elif is_image_name(base):
            name = "/".join(part for part in parts if part not in ("", "."))
            self._passed_over.replaced += name in self._places
            self._places[name] = place
        elif not self._says_class(name, size, content):
            self._passed_over.endings[ending(base)] += 1

    def _says_class(self, name: str, size: int, content: Callable[[], bytes] | None) -> bool:
        kind = ending(name)
        if content is None or size > _MOST_TEXT_BYTES.get(kind, -1):
            return False
        if kind == ".cls":
            self._texts[_key(name)] = _one_line(content().decode("utf-8", "surrogateescape"))
            return True
        label = _label_in(content())
        if label:
            self._texts.setdefault(_key(name), label)
        return bool(label)

    def result(self) -> Members:
        """What was found."""
        labels = [self._texts.get(_key(name), "") for name in self._places]
        return Members(list(self._places), list(self._places.values()), labels, self._passed_over)


def _label_in(content: bytes) -> str:
    """The class that a .json file states, under "label" or else "cls": a whole number or a text; "" where it
    states none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if isinstance(found, dict):
        for value in (found[key] for key in _JSON_KEYS if key in found):
            if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
                return _one_line(str(value))
    return ""


def _one_line(text: str) -> str:
    """The text without what no name of a class may have: JSON can write halves of characters, and NUL."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "\ufffd").strip()


def _key(name: str) -> str:
    """What webdataset's members of one sample have in common: the path up to the first dot of the file's
    name."""
    folder, _, base = name.rpartition("/")
    clean = "/".join(part for part in folder.split("/") if part not in ("", "."))
    return f"{clean}/{base.partition('.')[0]}"
