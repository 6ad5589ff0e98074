"""Files of tensors (safetensors): the same content has the same bytes, and a SHA-256 in the header.

The format itself does not notice a flipped bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lamina.core.files import replacing
from lamina.core.frozen import weights_sha256
from lamina.core.plain_files import CHANGED, RESTORE, SEAL, DamagedFile, check_plain


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Replace a file by these tensors; its header gets the metadata and the digest of all.

    Raises:
        OSError, SafetensorError: where it cannot be written.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": "pt", **metadata}
    with replacing(file) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # others may read it, as the system has it for new files
        save_file(own, temporary, metadata={**header, SEAL: content_sha256(own, header)})
        temporary.chmod(mode)
        _order_header(temporary)


def load_tensors(
    file: Path, *, links: bool = False, mend: str = RESTORE
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata; where the metadata hold the digest of
    `save_tensors`, the content has it.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: where it is no plain file, no safetensors, or has another digest than it says.
    """
    check_plain(file, links=links, mend=mend)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(file, f"it is damaged or no safetensors file ({_line(error)})", mend) from None
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != content_sha256(tensors, metadata):
        raise DamagedFile(file, CHANGED, mend)
    return tensors, metadata


def read_header(file: Path, *, links: bool = False, mend: str = RESTORE) -> dict[str, str]:
    """The metadata of a file, of which nothing was verified yet; raises as `load_tensors`."""
    check_plain(file, links=links, mend=mend)
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(file, f"it is damaged or no safetensors file ({_line(error)})", mend) from None


def content_sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata, and over names, dtypes, shapes and bytes of the tensors."""
    text = json.dumps([dict(metadata), weights_sha256(tensors)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _order_header(file: Path) -> None:
    """Put the header's metadata in order, in place: the library writes them in another order each time."""
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        ordered = {**header, "__metadata__": dict(sorted(header["__metadata__"].items()))}
        content = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        assert len(content) == size, "the header of safetensors is not written as JSON is"
        stream.seek(8)
        stream.write(content)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
