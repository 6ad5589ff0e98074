"""RandAugment and random erasing through timm, each a function of the image and of the sample's key."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from PIL import Image, ImageOps
from timm.data import auto_augment, random_erasing
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, seed_for, torch_seed

_TIMM = (auto_augment, random_erasing)
_SECTION = re.compile(r"t\w+|(m|n|p|mstd|mmax|inc)[0-9.]+")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class TrainAugment:
    """DeiT's augmentation (arXiv 2012.12877, table 9), after crop and flip.

    timm draws from the global generators of numpy and torch, and from Python's, in place of which it gets one
    of its own. They are seeded by the key and put back afterwards, so workers, ranks, other threads and a
    resume do not matter.

    Args:
        auto_augment: a RandAugment policy in timm's notation, "rand-m9-mstd0.5-inc1" in DeiT; None for none.
            It takes RGB and works in 8 bits (deeper images lose what is below); geometry is interpolated
            bicubically.
        erase: probability that one box (2 % to a third of the area, aspect ratio 0.3 to 1 / 0.3) is filled
            by noise: N(mean, std^2) for each pixel, cut off at the range of the image's pixels. 0.25 in DeiT.
            Any channels, uint8 or float on [0, 1].
        mean, std: channel statistics on [0, 1], for the noise and for what is moved in at the borders; by
            default ImageNet's for three channels, 0.5 and 0.25 otherwise.

    Raises:
        LaminaError: for a policy that timm does not know; when called, for images that it does not take.
    """

    def __init__(
        self,
        auto_augment: str | None = "rand-m9-mstd0.5-inc1",
        erase: float = 0.25,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if not 0 <= erase <= 1:
            raise LaminaError(f"data.erase is {erase}; it is a probability, from 0 to 1")
        self.auto_augment, self.erase = auto_augment, erase
        self.mean = None if mean is None else tuple(mean)
        self.std = None if std is None else tuple(std)
        self._policy = None if auto_augment is None else _policy(auto_augment, self.mean or _IMAGENET[0])
        self._eraser: Callable[[Tensor], Tensor] | None = None
        if erase:
            self._eraser = RandomErasing(erase, mode="pixel", device="cpu")  # type: ignore[no-untyped-call]

    def __call__(
        self, image: Shaped[Tensor, "C H W"], key: int | Int64[Tensor, ""] | Int64[Tensor, "1"]
    ) -> Shaped[Tensor, "C H W"]:
        """The augmented image, of the same size and dtype; the given one is left as it is."""
        if self._policy is None and self._eraser is None:
            return image
        with _seeded(seed_for(int(key), Purpose.AUGMENT)):
            if self._policy is not None:
                image = self._augment(self._policy, image)
            return image if self._eraser is None else self._with_noise(self._eraser, image)

    def _augment(self, policy: RandAugment, image: Tensor) -> Tensor:
        if len(image) != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
            kind = str(image.dtype).removeprefix("torch.")
            raise LaminaError(
                f"RandAugment takes RGB, not {len(image)} channel(s) of {kind}; set data.auto_augment "
                "to null (random erasing takes any image)"
            )
        stored = (image * 255).round().to(torch.uint8) if image.is_floating_point() else image
        # Pillow puts channels together, and takes them apart, in a twentieth of the time that numpy takes.
        channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in stored.numpy()]
        changed = policy(Image.merge("RGB", channels))
        result = torch.from_numpy(np.stack([np.asarray(channel) for channel in changed.split()]))
        return result / 255 if image.is_floating_point() else result

    def _with_noise(self, eraser: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """timm erases an empty canvas in normalised units; what it filled is put on the image."""
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise LaminaError(f"random erasing takes uint8 or floats on [0, 1], not {image.dtype}")
        canvas = torch.full(image.shape, torch.nan)
        untouched = canvas._version
        eraser(canvas)
        if canvas._version == untouched:  # no box was drawn
            return image
        mean, std = self._statistics(len(image))
        noise = (canvas * std + mean).clamp(0, 1)
        noise = noise if image.is_floating_point() else (noise * 255).round()
        return torch.where(canvas.isnan(), image, noise.nan_to_num(0).to(image.dtype))

    def _statistics(self, channels: int) -> tuple[Tensor, Tensor]:
        default = _IMAGENET if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
        found = [own or other for own, other in zip((self.mean, self.std), default, strict=True)]
        if any(len(values) != channels for values in found):
            raise LaminaError(
                f"mean and std have {[len(values) for values in found]} numbers for {channels} channels; "
                "give one for each"
            )
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in found)
        return mean, std


def _policy(name: str, mean: Sequence[float]) -> RandAugment:
    fill = tuple(min(255, round(255 * m)) for m in mean)
    hints = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
    try:
        if odd := [part for part in name.split("-")[1:] if not _SECTION.fullmatch(part)]:
            raise ValueError(f"part {odd[0]!r}")  # timm passes some of these over
        policy: RandAugment = rand_augment_transform(name, hints)
    except (AssertionError, ValueError, KeyError) as error:
        raise LaminaError(
            f"data.auto_augment {name!r} is no RandAugment policy of timm's ({error or 'unknown part'}); "
            "take rand-m9-mstd0.5-inc1, or null"
        ) from None
    for op in policy.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's posterize, which at the highest level keeps 0 bits of each pixel: Pillow refuses that from its
    version 13 on."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The generators that timm draws from, seeded, and as they were afterwards.

    Its modules get a generator of their own in place of Python's `random`, with the same numbers: another
    thread may draw from that of the process at any moment.
    """
    own, of_numpy = random.Random(seed), np.random.get_state()  # noqa: NPY002 (timm draws from it)
    try:
        with torch_seed(seed):
            for module in _TIMM:
                module.random = own  # type: ignore[attr-defined]
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        for module in _TIMM:
            module.random = random  # type: ignore[attr-defined]
        np.random.set_state(of_numpy)  # noqa: NPY002
