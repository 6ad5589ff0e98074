"""Helpers of the analyses that show images: which images, their pixels, names and maps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from lamina.analyze.models import Images, ModelOnImages
from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.core.shown_pixels import displayable, to_uint8
from lamina.core.text import printable

Picture = NDArray[np.uint8]
Map = tuple[tuple[float, ...], ...]


def picture_of(image: Shaped[Tensor, "C H W"], most: int | None = None) -> Picture:
    """An image as (H, W, 3) bytes: three channels as they are, of more the first three, else the first, grey.

    With `most`, every so many-th pixel, so that no side is longer than that.
    """
    stride = 1 if most is None else max(1, -(-max(image.shape[-2:]) // most))
    shown = displayable(image[None])[0].expand(3, -1, -1)[:, ::stride, ::stride]
    return np.ascontiguousarray(to_uint8(unit_float(shown)).permute(1, 2, 0).cpu().numpy())


def chosen_keys(keys: Iterable[int], n: int, seed: int) -> tuple[int, ...]:
    """`n` of the keys (all where there are no more), ascending: those whose hash with `seed` is smallest.

    So the choice from a set of images does not depend on their order, on batches or on the model.
    """
    if n < 1:
        raise LaminaError(f"{n} images were requested; give 1 or more")
    keys = sorted(keys)
    hashes = sample_keys(seed, 0, torch.tensor(keys, dtype=torch.int64)).tolist()
    order = sorted(range(len(keys)), key=lambda i: hashes[i])
    return tuple(sorted(keys[i] for i in order[:n]))


def keys_of(batch: Batch, done: int) -> Int64[Tensor, "B"]:
    """The batch's keys on the CPU; without, the images are counted from `done` on."""
    return torch.arange(done, done + len(batch)) if batch.keys is None else batch.keys.cpu()


def name_of(model: ModelOnImages, key: int) -> str:
    """The name of an image without control characters; its number where the source is unknown."""
    if isinstance(model.batches, Images):
        return printable(model.batches.source.name(key))
    return f"image {key}"


def grid_map(values: Shaped[Tensor, "N"], grid: tuple[int, int]) -> Map:
    """Numbers of patches as rows of a map."""
    return tuple(tuple(float(v) for v in row) for row in values.reshape(grid).tolist())


def rounded(values: Any) -> Any:
    """Numbers in nested tuples to 4 digits after the point, as lists."""
    return round(values, 4) if isinstance(values, float) else [rounded(value) for value in values]
