"""Memory into which one image after the other is decoded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_MOST_BYTES = 64 << 20
"""A colour image of 22 million pixels; larger ones have memory of their own."""


class Scratch:
    """Memory that is used again for each image: new memory is cleared by the system, which takes a fifth of
    the time of decoding a JPEG into it.

    An image in it is valid until the next one is decoded into it. For one thread at a time.
    """

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(0, np.uint8)

    def array(self, *shape: int) -> NDArray[np.uint8]:
        """An array of that shape, of any values."""
        n_bytes = math.prod(shape)
        if n_bytes > _MOST_BYTES:
            return np.empty(shape, np.uint8)
        if n_bytes > self._memory.size:
            self._memory = np.empty(n_bytes, np.uint8)
        return self._memory[:n_bytes].reshape(shape)


def kept(part: Tensor, image: Tensor) -> Tensor:
    """What was made of an image in a `Scratch`: a copy where it is a part of the same memory."""
    shared = part.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    return part.clone() if shared else part
