"""The verbs `lamina data check` and `lamina data pack`."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lamina.cli.arguments import Images, Json
from lamina.cli.output import check_json, say
from lamina.core.errors import LaminaError
from lamina.core.files import write_atomically
from lamina.core.ranges import COUNT, NOT_NEGATIVE, Range
from lamina.core.text import printable
from lamina.data.options import DataOptions, Pages
from lamina.data.value_range import Nodata


def _named(option: str) -> Any:
    """The name that a training has for an option, which sentences on files tell the reader to give."""
    return tyro.conf.arg(name=f"data.{option}")


def check(
    data: Images,
    /,
    in_chans: int = 3,
    duplicates: bool = False,
    json: Json = None,
    pages: Annotated[Pages, _named("pages")] = "first",
    value_range: Annotated[str | None, _named("value-range")] = None,
    nodata: Annotated[Nodata | float | None, _named("nodata")] = None,
) -> int:
    """Read every image as training does, and list the files that cannot be read, with the reason.

    The exit code is 0 where a pre-training would run, and 1 where it would stop because of too many files
    that cannot be read.

    The formats are JPEG (.jpg .jpeg .jpe .jfif), PNG (.png), WebP (.webp), AVIF (.avif), GIF (.gif), BMP
    (.bmp .dib), TIFF (.tif .tiff; with the extra `tiff` of any number of channels), NumPy arrays (.npy),
    Netpbm (.pbm .pgm .ppm .pnm) and, with the extra `dicom`, DICOM (.dcm .dicom, and files without an ending
    that have its mark). Files with other endings in a folder are skipped, and counted.

    Args:
        in_chans: Number of channels of the encoder that will be trained; images that cannot be converted to
            it count as files that cannot be read.
        duplicates: Also list files with equal content.
        pages: What is read of files of several pages, as in a training.
        value_range: Stored values that become 0 and 1, as LOW:HIGH; values outside of them are counted.
        nodata: Value of pixels without data, which are counted: a number, nan, file or keep.
    """
    from lamina.cli.progress import ImagesBar
    from lamina.data.check import check as check_source
    from lamina.data.open import open_source

    check_json(json)
    options = DataOptions(pages=pages, value_range=value_range, nodata=nodata)
    source, training = open_source(data, "all"), open_source(data)
    with ImagesBar() as bar:
        result = check_source(source, options, in_chans, duplicates, training, bar)
    for line in result.lines():
        say(line)
    if json is not None:
        write_atomically(json, dumps(result.to_json(), indent=1) + "\n")
    return 0 if result.ok else 1


def pack(
    data: Images,
    /,
    out: Path,
    side: Annotated[int, COUNT] = 256,
    format: Literal["jpeg", "raw"] = "jpeg",
    quality: Annotated[int | None, Range(1, 100)] = None,
    workers: Annotated[int, NOT_NEGATIVE] = 2,
    json: Json = None,
) -> int:
    """Write all images, shrunk to a short side, into one large file that trainings read several times as
    fast as the images themselves.

    The folder that it writes is given as DATA in place of the images, and has the same parts, classes, names
    and order. Images are never enlarged: those that are small enough keep their values, and so do images of
    more than 8 bits. Images that cannot be read are left out and counted.

    Args:
        out: Folder of the pack: a new one.
        side: Longest short side in pixels that images keep. Take at least 8/7 of the network's input: 256 for
            224.
        format: How images are stored. jpeg: as JPEG, with an alpha channel as PNG; files that are small
            enough stay as they are. raw: as uncompressed pixels, which takes about ten times as much space
            and is read faster.
        quality: Quality of JPEG, 1 to 100; by default 90. It has no meaning for raw.
        workers: Number of processes that read and shrink images; 0: the command does it itself.
    """
    from lamina.cli.progress import ImagesBar
    from lamina.data.pack.write import QUALITY
    from lamina.data.pack.write import pack as write_pack

    if quality is not None and format == "raw":
        raise LaminaError("--quality is of JPEG, and --format raw stores pixels; leave one of them out")
    check_json(json)
    with ImagesBar() as bar:
        quality = QUALITY if quality is None else quality
        result = write_pack(
            data, out, side=side, format=format, quality=quality, workers=workers, progress=bar
        )
    for line in result.lines():
        say(printable(line))
    if json is not None:
        write_atomically(json, dumps(asdict(result), indent=1) + "\n")
    return 0
