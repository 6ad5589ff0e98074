"""Reading files of folders that may come from a stranger: only plain files, of bounded size.

Never a device, a pipe, or a link, which may show any file of this computer.
"""

from __future__ import annotations

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from lamina.core.errors import LaminaError

MOST_BYTES = 64 << 20
"""Most bytes of a text that is read as a whole: far more than lamina writes, far less than memory."""
RESTORE = "restore it from a copy"
SEAL = "content_sha256"
"""Under which key of a JSON object, or of a header of tensors, the digest of all else in it stands."""
CHANGED = "it was changed after lamina wrote it (its SHA-256 is another)"
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY"))


class DamagedFile(LaminaError):
    """A file that is not taken as it is: `reason` in a few words; `mend` says what to do about it."""

    def __init__(self, file: Path, reason: str, mend: str = RESTORE) -> None:
        super().__init__(f"{file} cannot be used: {reason}; {mend}")
        self.file, self.reason = file, reason


def open_plain(file: Path, *, links: bool = False, mend: str = RESTORE) -> BufferedReader:
    """Open a file for reading, without ever waiting for it; the checks are of the file that was opened.

    Args:
        file: what to open.
        links: follow a link, as in the caches of model hubs; otherwise a link is refused, since it may show
            any file of this computer. Links among the folders above are always followed.
        mend: end of the sentence where the file is refused.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: for anything that is no plain file, or cannot be read.
    """
    try:
        if not links and file.is_symlink():
            raise DamagedFile(file, "it is a link, and only files of the folder itself are read", mend)
        if not stat.S_ISREG(os.stat(file).st_mode):  # before it is opened: a device may act on that
            raise DamagedFile(file, "it is no plain file", mend)
        opened = open(file, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(file)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(file, getattr(error, "strerror", None) or str(error), mend) from None
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise DamagedFile(file, "it is no plain file", mend)
    return opened


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


def check_plain(file: Path, *, links: bool = False, mend: str = RESTORE) -> None:
    """See that a library may open a file; raises as `open_plain`."""
    open_plain(file, links=links, mend=mend).close()


def read_plain(
    file: Path, most_bytes: int = MOST_BYTES, *, links: bool = False, mend: str = RESTORE
) -> bytes:
    """The content of a file; raises as `open_plain`, and `DamagedFile` for one of more than `most_bytes`."""
    with open_plain(file, links=links, mend=mend) as opened:
        try:
            content = opened.read(most_bytes + 1)
        except OSError as error:
            raise DamagedFile(file, error.strerror or str(error), mend) from None
    if len(content) > most_bytes:
        raise DamagedFile(file, f"it has more than {most_bytes >> 10} KiB", mend)
    return content


def read_text(file: Path, most_bytes: int = MOST_BYTES, *, links: bool = False, mend: str = RESTORE) -> str:
    """The content of a file as UTF-8; raises as `read_plain`, and `DamagedFile` where it is none."""
    try:
        return read_plain(file, most_bytes, links=links, mend=mend).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFile(file, f"byte {error.start} is no UTF-8", mend) from None


def sha256(path: Path) -> str:
    """The SHA-256 of a plain file's content, in hexadecimal; raises as `open_plain`."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
