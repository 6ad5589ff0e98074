"""JPEG is what Pillow decodes, pixel by pixel and reason by reason; what is decoded smaller is close to it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lamina.data.augment.crops import CenterCrop, Crop, RandomResizedCrop, SimpleResizedCrop
from lamina.data.decode import jpeg
from lamina.data.decode.decode import Decoded, decode
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

simplejpeg = pytest.importorskip(
    "simplejpeg", reason="simplejpeg is not installed (environments from before it was a dependency)"
)
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


def photo(name: str = "china.jpg") -> Image.Image:
    """427 x 640 px, in colour."""
    return Image.open(PHOTOS / name)


def encoded(image: Image.Image, **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **how)
    return stream.getvalue()


def found(content: bytes, **how: object) -> Decoded:
    return decode(io.BytesIO(content), Decoding(**how))  # type: ignore[arg-type]


def by_pillow(content: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as im:
        upright = ImageOps.exif_transpose(im).convert(mode)
    pixels = np.asarray(upright)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each file that simplejpeg was asked for, whether it decoded it."""
    asked: list[bool] = []
    whole = simplejpeg.decode_jpeg

    def decode_jpeg(*args: object, **kwargs: object) -> np.ndarray:
        asked.append(False)
        pixels = whole(*args, **kwargs)
        asked[-1] = True
        return pixels

    assert jpeg.usable()
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    return asked


KINDS: dict[str, dict[str, object]] = {
    "full colour resolution": {"subsampling": 0},
    "half colour resolution": {"subsampling": 1},
    "quarter colour resolution": {"subsampling": 2},
    "progressive": {"progressive": True},
    "progressive, full colour resolution": {"progressive": True, "subsampling": 0},
    "restarts and optimised tables": {"restart_marker_rows": 1, "optimize": True},
    "quality 5": {"quality": 5},
    "quality 100": {"quality": 100},
    "stored as RGB": {"keep_rgb": True},
    "a profile of 300 kB": {"icc_profile": bytes(300_000)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(640, 427), (99, 77), (8, 8), (1, 1)])
def test_colour_is_what_pillow_decodes(kind: str, size: tuple[int, int], counted: list[bool]) -> None:
    content = encoded(photo().resize(size), **KINDS[kind])
    assert np.array_equal(found(content).image, by_pillow(content, "RGB"))
    assert counted == [True]


@pytest.mark.parametrize("how", [{}, {"progressive": True}])
def test_grey_is_what_pillow_decodes(how: dict[str, object], counted: list[bool]) -> None:
    content = encoded(photo().convert("L"), **how)
    assert np.array_equal(found(content).image, by_pillow(content, "L"))
    assert counted == [True]


def test_colours_of_print_are_left_to_pillow(counted: list[bool]) -> None:
    content = encoded(photo().convert("CMYK"))
    assert np.array_equal(found(content).image, by_pillow(content, "RGB"))
    assert counted == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_pillow_turns_them(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo().resize((99, 77)), exif=exif)
    assert np.array_equal(found(content).image, by_pillow(content, "RGB"))
    plain = found(content, exif_orientation=False).image
    assert tuple(plain.shape) == (3, 77, 99)


def test_several_pictures_in_a_file_give_the_first(counted: list[bool]) -> None:
    stream = io.BytesIO()
    photo().save(stream, "MPO", save_all=True, append_images=[photo("flower.jpg")])
    result = found(stream.getvalue())
    assert (result.format, result.animated) == ("MPO", True)
    assert np.array_equal(result.image, by_pillow(stream.getvalue(), "RGB"))
    assert counted == [True]


def test_damaged_files_have_the_outcome_that_pillow_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    small = photo().resize((48, 40))
    whole = [encoded(small, **how) for how in (*KINDS.values(), {"restart_marker_rows": 2})]
    whole = [content for content in whole if len(content) < 10_000] + [encoded(small.convert("L"))]
    files = [damaged(whole[k % len(whole)], rng) for k in range(600)]
    assert jpeg.usable()
    with_it = [outcome(content) for content in files]
    monkeypatch.setattr(jpeg, "usable", lambda: False)
    without = [outcome(content) for content in files]
    assert with_it == without
    readable = sum(isinstance(each, bytes) for each in with_it)
    assert 100 < readable < 500, "both readable and unreadable files should be among them"


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    content, kind = bytearray(whole), rng.integers(4)
    if kind == 0:
        return whole[: rng.integers(2, len(whole))]
    if kind == 1:
        for _ in range(rng.integers(1, 5)):
            content[rng.integers(2, len(content))] ^= 1 << rng.integers(8)
    elif kind == 2:
        start = rng.integers(2, len(content))
        del content[start : start + rng.integers(1, 200)]
    else:
        content = content[: len(content) - rng.integers(0, 6)] + rng.bytes(rng.integers(0, 5))
    return bytes(content)


def outcome(content: bytes) -> bytes | str:
    try:
        image = found(content, max_pixels=1_000_000).image
    except Unreadable as error:
        return str(error)
    return repr(tuple(image.shape)).encode() + image.numpy().tobytes()


def test_a_file_that_could_take_too_long_is_left_to_pillow(counted: list[bool]) -> None:
    content = encoded(photo(), progressive=True)  # 273,280 px in 10 scans
    assert content.count(b"\xff\xda") == 10
    found(content, max_decode_seconds=0.25)
    assert counted == []
    found(content, max_decode_seconds=1)
    assert counted == [True]


def test_time_that_is_over_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg.usable()
    whole = simplejpeg.decode_jpeg
    seconds = iter([0.0] * 3)
    now = {"then": 0.0}
    monkeypatch.setattr("time.thread_time", lambda: next(seconds, 0.0) + now["then"])

    def slow(*args: object, **kwargs: object) -> np.ndarray:
        now["then"] = 11.0
        return whole(*args, **kwargs)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", slow)
    with pytest.raises(Unreadable) as error:
        found(encoded(photo()))
    assert error.value.reason == Reason.TOO_SLOW


def test_a_decoder_with_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args, **kw: whole(*args, fastdct=True, **kw))
    jpeg.usable.cache_clear()
    try:
        assert not jpeg.usable()
    finally:
        jpeg.usable.cache_clear()


# --- decoded smaller ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_smaller_is_what_pillow_decodes_smaller(
    factor: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(photo().convert(mode))
    with Image.open(io.BytesIO(content)) as im:
        im.draft(im.mode, (640 // factor, 427 // factor))
        want = np.asarray(im.convert("RGB") if mode == "CMYK" else im)
    for usable in (True, False):
        monkeypatch.setattr(jpeg, "usable", lambda usable=usable: usable)
        result = found(content, reduce=lambda height, width: factor if (height, width) == (427, 640) else 1)
        assert result.reduced == (factor, 427, 640)
        assert np.array_equal(result.image.permute(1, 2, 0).squeeze(-1), want)


def test_only_what_divides_a_turned_photograph_makes_it_smaller() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for width, factor in ((640, 4), (642, 2), (641, 1)):
        content = encoded(photo().resize((width, 400)), exif=exif)
        result = found(content, reduce=lambda height, width: 4)
        assert tuple(result.image.shape) == (3, width // factor, 400 // factor)
        assert result.reduced == (None if factor == 1 else (factor, width, 400))


CROPS: dict[str, Crop] = {
    "random": RandomResizedCrop((64, 64)),
    "random, wide": RandomResizedCrop((48, 80)),
    "simple": SimpleResizedCrop((64, 64)),
    "centre": CenterCrop((64, 64)),
    "whole centre": CenterCrop((96, 96), share=1.0),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", CROPS)
def test_crops_of_what_was_decoded_smaller_are_close(name: str, mode: str) -> None:
    crop, near = CROPS[name], []
    for file in ("china.jpg", "flower.jpg"):
        content = encoded(photo(file).convert(mode).resize((641, 427)), quality=92)
        for draws in np.random.default_rng(0).random((12, crop.n_draws)).tolist():
            whole = crop(found(content, in_chans=3).image, draws)
            small = found(content, in_chans=3, reduce=lambda h, w, draws=draws: crop.factor(h, w, draws))
            if small.reduced is None:
                continue
            made = crop(small.image, draws, small.reduced)
            assert made.shape == whole.shape
            assert made.dtype == torch.uint8
            near.append(psnr(made, whole))
    assert near, "nothing was decoded smaller"
    assert min(near) > 30
    assert np.median(near) > 36


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(255**2 / max(1e-9, (a.double() - b.double()).square().mean().item()))


@pytest.mark.parametrize("name", CROPS)
def test_nothing_is_decoded_smaller_than_it_is_shown(name: str) -> None:
    crop = CROPS[name]
    for size in ((427, 640), (640, 427), (64, 64), (5000, 40), (3000, 4000)):
        for draws in np.random.default_rng(1).random((20, crop.n_draws)).tolist():
            factor = crop.factor(*size, draws)
            assert factor in (1, 2, 4, 8)
            if isinstance(crop, RandomResizedCrop):
                part, shown = crop.box(*size, draws)[2:], crop.size
                assert factor == 1 or all(p >= factor * s for p, s in zip(part, shown, strict=True))
                assert factor == 8 or any(p < 2 * factor * s for p, s in zip(part, shown, strict=True))
