"""Why a file could not become an image."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The fixed set of reasons; faults are counted by them."""

    MISSING = "missing"
    FORBIDDEN = "no permission"
    NOT_A_FILE = "not a regular file"
    EMPTY = "empty file"
    PACKED = "packed in a way that is not read"
    UNKNOWN_FORMAT = "not a known image format"
    BROKEN = "truncated or corrupt"
    TOO_LARGE = "larger than allowed"
    TOO_SLOW = "takes longer than allowed to decode"
    PIXEL_TYPE = "unsupported pixel type"
    NOT_FINITE = "NaN or infinite values"
    NO_DATA = "only pixels without data"
    CHANNELS = "unsuitable number of channels"
    LABELS = "labels that do not fit the image"


class Unreadable(Exception):
    """A file that cannot be read: one of the fixed reasons, and what exactly was wrong."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
