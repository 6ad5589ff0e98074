"""The verb `lamina data check`."""

from __future__ import annotations

from json import dumps

from lamina.cli.arguments import Images, Json
from lamina.cli.output import check_json, say
from lamina.core.files import write_atomically


def check(data: Images, /, in_chans: int = 3, duplicates: bool = False, json: Json = None) -> int:
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
    """
    from lamina.cli.progress import ImagesBar
    from lamina.data.check import check as check_source
    from lamina.data.open import open_source

    check_json(json)
    source, training = open_source(data, "all"), open_source(data)
    with ImagesBar() as bar:
        result = check_source(source, None, in_chans, duplicates, training, bar)
    for line in result.lines():
        say(line)
    if json is not None:
        write_atomically(json, dumps(result.to_json(), indent=1) + "\n")
    return 0 if result.ok else 1
