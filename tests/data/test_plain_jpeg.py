"""A JPEG with a plain header has the same pixels, notes and reasons without Pillow's look at it as with it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image, ImageCms

from lamina.data.decode import decode as common
from lamina.data.decode import jpeg
from lamina.data.decode.decode import decode
from lamina.data.decode.plain_jpeg import Header, plain_header
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

pytest.importorskip("simplejpeg", reason="simplejpeg is not installed (environments from before it)")
PHOTO = Path(sklearn.datasets.__file__).parent / "images/china.jpg"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLAIN = {
    "colour": {},
    "whole colours": {"subsampling": 0},
    "half colours": {"subsampling": 1},
    "comment": {"comment": b"a comment"},
    "profile": {"icc_profile": PROFILE},
    "restarts": {"restart_marker_rows": 1},
    "resolution": {"dpi": (300, 300)},
}


def encoded(mode: str = "RGB", kind: str = "JPEG", size: tuple[int, int] = (50, 37), **how: object) -> bytes:
    stream = io.BytesIO()
    with Image.open(PHOTO) as im:
        im.convert(mode).resize(size).save(stream, kind, **how)
    return stream.getvalue()


def with_segment(content: bytes, kind: int, data: bytes) -> bytes:
    """The file with one more segment at its beginning."""
    return content[:2] + bytes([0xFF, kind]) + (len(data) + 2).to_bytes(2, "big") + data + content[2:]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("how", PLAIN.values(), ids=PLAIN)
def test_plain_photographs_are_not_shown_to_pillow(
    how: dict[str, object], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(mode, size=(500, 375), quality=94, **how)
    with Image.open(io.BytesIO(content)) as im:
        want, header = np.atleast_3d(np.asarray(im)), Header(im.height, im.width, len(im.getbands()))
    assert plain_header(content) == header

    assert jpeg.usable()  # asks Pillow, once

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(Image, "open", refused)
    found = decode(io.BytesIO(content), Decoding())
    assert np.array_equal(found.image.permute(1, 2, 0), want)
    assert (found.format, found.mode, found.orientation, found.notes) == ("JPEG", mode, 1, ())


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(exif=exif)


def scan_of_one_component() -> bytes:
    """A first scan that names one of three components, so that others must follow."""
    content = encoded()
    scan = content.index(b"\xff\xda")
    return content[:scan] + bytes.fromhex("ffda 0008 01 0100 003f00") + content[scan + 14 :]


ODD = {
    "turned": turned(),
    "progressive": encoded(progressive=True),
    "a scan for each component": scan_of_one_component(),
    "print": encoded("CMYK"),
    "colours as they are": encoded(keep_rgb=True),
    "Adobe": with_segment(encoded(), 0xEE, b"Adobe\0\x64\0\0\0\0\x00"),
    "more pictures": with_segment(encoded(), 0xE2, b"MPF\0" + bytes(20)),
    "a profile of no length": with_segment(encoded(), 0xE2, b"ICC_PROFILE\0"),
    "Photoshop": with_segment(encoded(), 0xED, b"Photoshop 3.0\x008BIM\x04"),
    "short JFIF": with_segment(encoded(), 0xE0, b"JFIF\0\x01"),
    "short table": with_segment(encoded(), 0xDB, bytes(60)),
    "two frames": with_segment(encoded(), 0xC0, bytes.fromhex("0800200020010111 00".replace(" ", ""))),
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_other_headers_are_left_to_pillow(content: bytes) -> None:
    assert plain_header(content) is None


def test_a_header_in_pieces_is_not_plain() -> None:
    content = encoded()
    scan = content.index(b"\xff\xda")
    for end in range(scan + 4):
        assert plain_header(content[:end]) is None


def outcome(content: bytes, how: Decoding) -> object:
    try:
        found = decode(io.BytesIO(content), how)
    except Unreadable as error:
        return error.reason, str(error)
    about = found.format, found.mode, found.orientation, found.animated, found.notes, found.reduced
    return *about, tuple(found.image.shape), found.image.numpy().tobytes()


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Two of three files in the header."""
    content = bytearray(whole)
    end = whole.index(b"\xff\xda") + 14 if rng.integers(3) else len(whole)
    place, kind = int(rng.integers(2, end)), rng.integers(4)
    if kind == 0:
        return whole[:place]
    if kind == 1:
        for at in rng.integers(2, end, rng.integers(1, 4)):
            content[at] ^= 1 << rng.integers(8)
    elif kind == 2:
        del content[place : place + int(rng.integers(1, 40))]
    else:
        content[place:place] = rng.bytes(int(rng.integers(1, 20)))
    return bytes(content)


def test_damaged_files_have_the_same_outcome_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    whole = [encoded(mode, **how) for how in PLAIN.values() for mode in ("RGB", "L")] + list(ODD.values())
    files = [*ODD.values(), *(damaged(whole[k % len(whole)], rng) for k in range(1000))]
    plain = sum(plain_header(content) is not None for content in files)
    assert 100 < plain < 900, "both plain and other headers should be among them"
    how = Decoding(max_pixels=1_000_000)
    found = [outcome(content, how) for content in files]
    monkeypatch.setattr(common, "read_plain_jpeg", lambda *_: None)
    assert found == [outcome(content, how) for content in files]


@pytest.mark.parametrize(
    "how", [{"max_pixels": 1000}, {"max_decode_mb": 0}, {"value_range": ((0.0, 100.0),)}, {"in_chans": 1}]
)
def test_limits_and_options_are_those_of_the_common_way(
    how: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, content = Decoding(**how), encoded(size=(500, 375))  # type: ignore[arg-type]
    found = outcome(content, options)
    if "max_pixels" in how or "max_decode_mb" in how:
        assert isinstance(found, tuple)
        assert found[0] == Reason.TOO_LARGE
    monkeypatch.setattr(common, "read_plain_jpeg", lambda *_: None)
    assert found == outcome(content, options)
