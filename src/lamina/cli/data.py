"""The verb `lamina data check`."""

from __future__ import annotations

from json import dumps
from typing import Annotated, Any

import tyro

from lamina.cli.arguments import Images, Json
from lamina.cli.output import check_json, say
from lamina.core.files import write_atomically
from lamina.data.options import DataOptions, Nodata, Pages


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
    (.bmp .dib), TIFF (.tif .tiff; with the extra `tiff` of any number of channels), NumPy arrays (.npy) and
    Netpbm (.pbm .pgm .ppm .pnm). Files with other endings in a folder are skipped, and counted.

    Args:
        in_chans: Number of channels of the encoder that will be trained; images that cannot be converted to
            it count as files that cannot be read.
        duplicates: Also list files with equal content.
        pages: What is read of files of several pages, as in a training.
        value_range: Stored values that become 0 and 1, as LOW:HIGH; values outside of them are counted.
        nodata: Value of pixels without data, which are counted: a number, nan, file or off.
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
