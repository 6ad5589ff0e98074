"""Which way up an image is stored: EXIF's tag, and turning by it."""

from __future__ import annotations

from jaxtyping import Shaped
from PIL import Image
from torch import Tensor


def orientation_of(im: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a damaged tag counts as 1."""
    if "exif" not in im.info and im.format not in ("PNG", "TIFF"):
        return 1
    try:
        found = int(im.getexif().get(0x0112, 1))
    except Exception:  # the pixels are fine, only their metadata is not
        return 1
    return found if 1 <= found <= 8 else 1


def turn(image: Shaped[Tensor, "C H W"], orientation: int) -> Shaped[Tensor, "C H2 W2"]:
    """Turn an image upright as EXIF's orientation 1 to 8 says (as Pillow's `exif_transpose`)."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return image.flip(flips) if flips else image
