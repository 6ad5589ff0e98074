"""`sample:fashion-mnist`: 60,000 + 10,000 grey pictures of clothes, 28 x 28 px, 10 classes."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.data.query import parse_query
from lamina.data.samples.cache import cache_folder
from lamina.data.samples.catalog import parts_of
from lamina.data.sources import ArraySource, Split

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
_PREFIXES = {"train": "train", "val": "t10k"}


@dataclass(frozen=True)
class FashionOptions:
    """How many pictures, and how large."""

    most: int = 0
    """Number of pictures of each part, the first ones. 0: all of them."""
    pad: int = 0
    """Number of black pixels added on each side; 2 makes 32 x 32 px."""


def open_fashion_mnist(query: str, split: Split | None, folder: Path = DEBIAN_FOLDER) -> ArraySource:
    """One part ("val" is the published test set; None is the training part).

    The files are read where Debian's package puts them, else from the cache ($LAMINA_CACHE, or lamina in
    $XDG_CACHE_HOME or ~/.cache), into which torchvision downloads them once.

    Raises:
        LaminaError: if they are in neither place and cannot be downloaded.
    """
    options = parse_query(query, FashionOptions)
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        folder = _download(cache_folder())
    images, labels, names = [], [], []
    for part in parts_of(split):
        prefix = _PREFIXES[part]
        pixels = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        classes = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        keep = min(len(pixels), options.most or len(pixels))
        images.append(pixels[:keep, None])
        labels += classes[:keep].tolist()
        names += [f"{prefix}-{i:05d}" for i in range(keep)]
    stacked = torch.nn.functional.pad(torch.cat(images), [options.pad] * 4)
    return ArraySource(stacked, names, labels, CLASSES)


def read_idx(file: Path) -> UInt8[Tensor, "*shape"]:
    """An array of bytes in the idx format (gzip): 0, 0, type, axes; sizes as big-endian int32; data."""
    try:
        data = gzip.decompress(file.read_bytes())
        if data[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of bytes")
        sizes = [int(n) for n in np.frombuffer(data, ">i4", data[3], 4)]
        array = np.frombuffer(data, np.uint8, math.prod(sizes), 4 + 4 * len(sizes))
    except (OSError, ValueError, EOFError, IndexError, zlib.error) as error:
        raise LaminaError(f"{file} cannot be read ({error}); remove it and install it anew") from None
    return torch.from_numpy(array.reshape(sizes).copy())


def _download(cache: Path) -> Path:
    """The folder of the files below `cache`, downloaded by torchvision if they are not there yet."""
    from torchvision.datasets import FashionMNIST

    folder = cache / "FashionMNIST" / "raw"
    wanted = [
        folder / f"{p}-{f}.gz" for p in ("train", "t10k") for f in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    if all(file.is_file() for file in wanted):
        return folder
    try:
        FashionMNIST(str(cache), download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise LaminaError(
            "sample:fashion-mnist is neither installed nor can it be downloaded "
            f"({str(error).splitlines()[0]}); on Debian or Ubuntu: apt install dataset-fashion-mnist"
        ) from None
    return folder
