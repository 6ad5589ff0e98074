"""One image takes no more memory and time than was allowed, whatever its header says and whoever reads it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_files import SLOW_JPEG, as_npy, as_tiff, deep_png, encoded, png, png_chunk
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.decode.decode import decode_file
from lamina.data.decode.limits import TimedFile
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions, Decoding

SIDE = 2400
MIB = 2**20
SPARE_MIB = 8
"""What decoding takes besides: bands, buffers, memory that the allocator keeps; at most 4 were seen."""


def tiles() -> np.ndarray:
    """Five channels of 16 bits in tiles of one colour, which all formats compress quickly."""
    tile = np.random.default_rng(0).integers(0, 65536, (SIDE // 40, SIDE // 40, 5), dtype=np.uint16)
    return tile.repeat(40, 0).repeat(40, 1)


PALETTE = png_chunk(b"PLTE", bytes(range(48))) + png_chunk(b"tRNS", bytes(16))
BYTES = (tiles() >> 8).astype(np.uint8)
FILES: dict[str, tuple[Callable[[], bytes], int | None]] = {
    "rgba.png over a background": (lambda: encoded(BYTES[..., :4], "PNG", compress_level=1), 3),
    "rgba.png as grey": (lambda: encoded(BYTES[..., :4], "PNG", compress_level=1), 1),
    "palette.png": (lambda: png((SIDE, SIDE, 4, 3), bytes(SIDE * (SIDE // 2 + 1)), PALETTE), 3),
    "grey.png as rgb": (lambda: encoded(BYTES[..., 0], "PNG", compress_level=1), 3),
    "16-bit.png": (lambda: deep_png(tiles()[..., :3]), None),
    "16-bit grey.png": (lambda: encoded(tiles()[..., 0], "PNG", compress_level=1), None),
    "progressive.jpg": (lambda: encoded(BYTES[..., :3], "JPEG", progressive=True, subsampling=0), None),
    "baseline.jpg": (lambda: encoded(BYTES[..., :3], "JPEG"), 1),
    "lossless.webp": (lambda: encoded(BYTES[..., :4], "WEBP", lossless=True, method=0, quality=0), 3),
    "lossy.webp": (lambda: encoded(BYTES[..., :3], "WEBP", method=0), None),
    "image.avif": (lambda: encoded(BYTES[..., :4], "AVIF", speed=10), 3),
    "image.gif": (lambda: encoded(BYTES[..., 0], "GIF"), None),
    "lzw.tif": (lambda: encoded(BYTES[..., :3], "TIFF", compression="tiff_lzw"), None),
    "turned.tif": (lambda: as_tiff(BYTES[..., :3], photometric="rgb", extratags=[(274, "H", 1, 6, True)]), 3),
    "channels.tif": (
        lambda: as_tiff(tiles().transpose(2, 0, 1), metadata={"axes": "CYX"}, photometric="minisblack"),
        None,
    ),
    "samples.tif": (lambda: as_tiff(tiles()[..., :3], photometric="rgb", compression="zlib"), None),
    "16-bit.npy": (lambda: as_npy(tiles()[..., :3]), None),
    "double.npy": (lambda: as_npy(tiles()[..., :3] / 65535), None),
}


MEASURING = """
import ctypes, json, os, sys
from pathlib import Path
from lamina.data.decode.decode import decode_file
from lamina.data.options import Decoding

def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

for line in sys.stdin:
    path, in_chans = json.loads(line)
    if (child := os.fork()) == 0:
        try:
            decode_file(path, Decoding(in_chans))  # code and tables that are read at first are no image
            ctypes.CDLL(None).malloc_trim(0)  # what the first reading left would be used again
            Path("/proc/self/clear_refs").write_text("5")
            before = kib("VmRSS")
            decode_file(path, Decoding(in_chans))
            print(kib("VmHWM") - before, flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def measuring() -> Iterator[subprocess.Popen[str]]:
    """A process that reads images and nothing else: what other tests left in this one does not count."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", MEASURING], stdin=pipe, stdout=pipe, text=True, env=environment
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def peak_mib(measuring: subprocess.Popen[str], path: Path, in_chans: int | None) -> float:
    """The highest memory of reading a file for the second time, in a process forked for it."""
    assert measuring.stdin is not None
    assert measuring.stdout is not None
    measuring.stdin.write(json.dumps([str(path), in_chans]) + "\n")
    measuring.stdin.flush()
    return int(measuring.stdout.readline()) / 1024


def counted_mib(path: Path, in_chans: int | None) -> int:
    """The smallest limit that lets it be read: each refusal says how much is needed."""
    limit = 1
    while True:
        try:
            decode_file(str(path), Decoding(in_chans, max_decode_mb=limit))
            return limit
        except Unreadable as error:
            if error.reason != Reason.TOO_LARGE:
                raise
            needed = error.detail.removeprefix("decoding takes about ").split(" MiB")[0]
            limit = max(limit + 1, int(needed))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory by /proc")
@pytest.mark.parametrize("name", list(FILES))
def test_what_an_image_takes_is_bounded_by_what_is_counted(
    tmp_path: Path, name: str, measuring: subprocess.Popen[str]
) -> None:
    """What it really takes is no more than the smallest limit that lets it pass, nor less than half of that."""
    make, in_chans = FILES[name]
    path = tmp_path / name.split()[0]
    path.write_bytes(make())
    taken = [peak_mib(measuring, path, in_chans) for _ in range(2)]
    counted = counted_mib(path, in_chans)

    # The system adds to a measurement (pages read ahead) or takes from it (pages that it reclaims meanwhile).
    assert min(taken) <= counted + SPARE_MIB
    assert counted <= 2 * max(taken)


def test_a_webp_larger_than_the_limit_is_not_even_opened(tmp_path: Path) -> None:
    """Pillow reads all of it as soon as it opens it."""
    for name, head in (("a.webp", b"RIFF\0\0\0\0WEBPVP8 "), ("a.avif", b"\0\0\0\x1cftypavif")):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, 50 * MIB)
        with pytest.raises(Unreadable, match="about 50 MiB, at most 20 MiB"):
            decode_file(str(tmp_path / name), Decoding(max_decode_mb=20))


# --- time -------------------------------------------------------------------------------------------------


def slow_reason(path: Path) -> str:
    with pytest.raises(Unreadable) as found:
        decode_file(str(path), Decoding(max_decode_seconds=0.1))
    return str(found.value)


def test_time_is_limited_in_the_main_thread_and_in_others(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(SLOW_JPEG)
    found = [slow_reason(tmp_path / "a.jpg")]
    thread = threading.Thread(target=lambda: found.append(slow_reason(tmp_path / "a.jpg")))
    thread.start()
    thread.join()
    want = f"{Reason.TOO_SLOW}: more than 0.1 s of processor time (max_decode_seconds)"
    assert found == [want, want]


def test_waiting_for_a_disk_costs_no_image(tmp_path: Path) -> None:
    class Slow(io.FileIO):
        def readinto(self, buffer: bytearray) -> int | None:
            time.sleep(0.15)
            return super().readinto(buffer)

    (tmp_path / "a").write_bytes(b"x" * 100)
    with TimedFile(Slow(tmp_path / "a", "rb"), seconds=0.1) as file:
        assert file.read(10) == b"x" * 10
        assert file.read() == b"x" * 90
        end = time.thread_time() + 0.11
        while time.thread_time() < end:
            pass
        with pytest.raises(Unreadable, match="processor time"):
            file.read()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_over_a_limit_is_an_ordinary_unreadable_file(tmp_path: Path, workers: int) -> None:
    """Its slot is filled, and the loader goes on: in a worker process as in the training process."""
    for i in range(6):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "slow.jpg").write_bytes(SLOW_JPEG)
    np.save(tmp_path / "large.npy", np.zeros((1000, 1000), np.float64))
    options = DataOptions(workers=workers, max_decode_mb=4, max_decode_seconds=0.1)
    source = open_source(str(tmp_path))
    loader = TrainLoader(source, options, seed=0, batch_size=8, image_size=(16, 16))
    (batch,) = loader.batches(0, 1)
    assert len(batch) == 8
    found = {source.name(fault.index): fault.reason for fault in batch.faults}
    assert found == {"slow.jpg": Reason.TOO_SLOW, "large.npy": Reason.TOO_LARGE}
    assert check(source, replace(options, workers=0)).reasons == {Reason.TOO_SLOW: 1, Reason.TOO_LARGE: 1}


@pytest.mark.parametrize("wrong", [{"max_decode_mb": 0}, {"max_decode_seconds": 0}])
def test_limits_that_allow_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(LaminaError, match=next(iter(wrong))):
        DataOptions(**wrong)
