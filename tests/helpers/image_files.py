"""Images as bytes: by libraries, and PNG and TIFF by hand where none writes what a test needs."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import tifffile
from PIL import Image

SLOW_JPEG = b"\xff\xd8" + b"\xff" * 3_000_000
"""Pillow looks for the end of the padding byte by byte, for about a second."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: tuple[int, int, int, int], rows: bytes, extra: bytes = b"") -> bytes:
    """(width, height, bit depth, colour type), filtered rows, chunks before IDAT."""
    body = (
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
    )
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def deep_png(pixels: np.ndarray, extra: bytes = b"") -> bytes:
    """16 bits per sample, (H, W, C)."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png((width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels]), rows, extra)


def packed(rows: np.ndarray, bits: int) -> bytes:
    """Rows of unsigned integers, so many bits of each, the highest first; a row fills its last byte."""
    found = b""
    for row in rows:
        if bits == 16:
            found += row.astype("<u2").tobytes()
            continue
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        found += int(text, 2).to_bytes(len(text) // 8, "big")
    return found


_SIZES = {1: "B", 2: "s", 3: "H", 4: "I"}


def tiff(
    size: tuple[int, int],
    bits: int | Sequence[int],
    strips: Sequence[bytes],
    photometric: int = 1,
    samples: int = 1,
    planar: int = 1,
    more: dict[int, tuple[int, Sequence[int] | bytes]] | None = None,
) -> bytes:
    """Little-endian, uncompressed, one IFD; `size` is (width, height), `more` adds or replaces tags by
    {number: (type, values)}. One strip, or one for each plane where `planar` is 2."""
    depths = (bits,) * samples if isinstance(bits, int) else tuple(bits)
    out = bytearray(b"II*\0\0\0\0\0")
    places = []
    for strip in strips:
        places.append(len(out))
        out += strip + b"\0" * (len(strip) % 2)
    tags: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (4, (size[0],)),
        257: (4, (size[1],)),
        258: (3, depths),
        259: (3, (1,)),
        262: (3, (photometric,)),
        273: (4, places),
        277: (3, (samples,)),
        278: (4, (size[1],)),
        279: (4, [len(strip) for strip in strips]),
        284: (3, (planar,)),
    } | (more or {})
    entries = b""
    for number, (kind, values) in sorted(tags.items()):
        raw = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_SIZES[kind]}", *values)
        field = raw
        if len(raw) > 4:
            field = struct.pack("<I", len(out))
            out += raw + b"\0" * (len(raw) % 2)
        entries += struct.pack("<HHI", number, kind, len(values)) + field.ljust(4, b"\0")
    out[4:8] = struct.pack("<I", len(out))
    return bytes(out + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0")


def sampled_tiff(
    pixels: np.ndarray, bits: int, photometric: int = 1, planar: int = 1, extra: Sequence[int] = ()
) -> bytes:
    """Unsigned integers of any depth, (H, W, C), as samples of one page; `extra` as in tag 338."""
    height, width, samples = pixels.shape
    if planar == 1:
        strips = [packed(pixels.reshape(height, width * samples), bits)]
    else:
        strips = [packed(pixels[..., c], bits) for c in range(samples)]
    more = {338: (3, tuple(extra))} if extra else {}
    return tiff((width, height), bits, strips, photometric, samples, planar, more)


def encoded(array: np.ndarray, kind: str, **options: object) -> bytes:
    """As Pillow writes it."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def as_tiff(array: np.ndarray, **options: object) -> bytes:
    """As tifffile writes it."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    """As NumPy writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
