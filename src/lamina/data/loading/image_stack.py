"""The images of a batch, put into one tensor one by one as they are made."""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor

from lamina.core.batch import unit_float


class ImageStack:
    """Images of one size in one tensor: each is copied while it is in the processor's cache, which takes less
    time than stacking a list of them at the end.

    Args:
        n: how many there may be.
    """

    def __init__(self, n: int) -> None:
        self._n, self._count = n, 0
        self._all: Tensor | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, image: Shaped[Tensor, "C h w"]) -> None:
        """Copy an image, whose memory may be used for another one then. Where 8-bit and 16-bit files are
        mixed, all become float in [0, 1]."""
        if self._all is None:
            self._all = image.new_empty(self._n, *image.shape)
        if self._all.dtype != image.dtype:
            self._all, image = unit_float(self._all), unit_float(image)
        if self._all.shape[1:] != image.shape:  # copying would repeat a single channel or row
            raise ValueError(
                f"images of {tuple(self._all.shape[1:])} and of {tuple(image.shape)} in one batch"
            )
        self._all[self._count].copy_(image)
        self._count += 1

    def stacked(self) -> Shaped[Tensor, "B C h w"]:
        """All images so far; of shape (0, 0, 0, 0) where there is none."""
        if self._all is None:
            return Tensor().new_empty(0, 0, 0, 0)
        return self._all[: self._count]
