"""Mixup and CutMix of a batch with its reverse, as timm's `Mixup` does it, by counter-based numbers.

timm draws from numpy's global generator on the host, once a batch. Here the numbers are functions of one key
and are drawn where the batch is: a resumed run draws the same, and on a GPU nothing waits. The middle one of
an odd batch is mixed with itself, which leaves it as it is.

Mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from timm.data.mixup import mixup_target
from torch import Tensor

from lamina.core.rng import Purpose, uniform
from lamina.supervised.options import SupervisedOptions

_TRIES = 16  # each is accepted with at least 0.95, see `_log_gamma`
_GAMMA = 2 * _TRIES + 1
_FIRST = 4


class Draws(NamedTuple):
    """The random numbers of a batch, 0-d: four uniform ones on [0, 1), and a share for each way to mix."""

    mixed: Float64[Tensor, ""]
    switch: Float64[Tensor, ""]
    top: Float64[Tensor, ""]
    left: Float64[Tensor, ""]
    mixup: Float64[Tensor, ""]
    cutmix: Float64[Tensor, ""]


class Mix(NamedTuple):
    """How much of each image stays: per pixel, and over the whole image (which its label takes)."""

    weight: Float[Tensor, "H W"]
    share: Float[Tensor, ""]


def draw(key: Int64[Tensor, "1"], options: SupervisedOptions) -> Draws:
    """The numbers of the batch that `key` stands for."""
    u = uniform(key, _FIRST + 4 * _GAMMA, Purpose.MIX)[0]
    first, mixup, cutmix = u[:_FIRST], u[_FIRST : _FIRST + 2 * _GAMMA], u[_FIRST + 2 * _GAMMA :]
    mixed, switch, top, left = first.unbind()
    return Draws(mixed, switch, top, left, _beta(mixup, options.mixup), _beta(cutmix, options.cutmix))


def placed(draws: Draws, size: tuple[int, int], options: SupervisedOptions) -> Mix:
    """What the numbers mean for images of height x width px.

    CutMix cuts a box of share 1 - lambda around a uniform centre, clipped at the border, and the label's
    share is corrected for what was clipped.
    """
    height, width = size
    cut = draws.switch < options.switch_prob
    if not (options.mixup and options.cutmix):
        cut = torch.full_like(cut, bool(options.cutmix))
    side = (1 - draws.cutmix).sqrt()
    rows = _inside(height, (height * side).floor(), (height * draws.top).floor())
    columns = _inside(width, (width * side).floor(), (width * draws.left).floor())
    box = rows[:, None] & columns  # (H, W)
    weight = torch.where(cut, (~box).double(), draws.mixup)
    share = torch.where(cut, 1 - box.sum() / (height * width), draws.mixup)
    mixed = draws.mixed < options.mix_prob
    weight, share = weight.where(mixed, 1.0), share.where(mixed, 1.0)
    return Mix(weight.float(), share.float())


def mix_images(images: Float[Tensor, "B C H W"], mix: Mix) -> Float[Tensor, "B C H W"]:
    """Each image with the one at the same place from the other end."""
    return torch.lerp(images.flip(0), images, mix.weight.to(images))


def mix_labels(
    labels: Int64[Tensor, "B"], n_classes: int, share: Float[Tensor, ""] | float, smoothing: float
) -> Float[Tensor, "B classes"]:
    """Smoothed one-hot labels, mixed alike (`timm.data.mixup.mixup_target`)."""
    return mixup_target(labels, n_classes, share, smoothing)  # type: ignore[no-untyped-call, no-any-return]


def mix_several(
    labels: Bool[Tensor, "B classes"], share: Float[Tensor, ""] | float, smoothing: float
) -> Float[Tensor, "B classes"]:
    """Shares of labels of which an image has any number: each smoothed by itself, y (1 - s) + s / 2, and
    mixed as the images are."""
    own = labels.float() * (1 - smoothing) + smoothing / 2
    return own.flip(0).lerp(own, share)


def _inside(length: int, cut: Tensor, centre: Tensor) -> Tensor:
    """The places of an axis within a segment of `cut` around `centre`; the longer half comes after it."""
    place = torch.arange(length, device=cut.device)
    return (place >= centre - (cut / 2).floor()) & (place < centre + ((cut + 1) / 2).floor())


def _beta(u: Float64[Tensor, "n"], alpha: float) -> Float64[Tensor, ""]:
    """A number of Beta(alpha, alpha): one gamma variate over the sum of two; 1 where alpha is 0."""
    if not alpha:
        return torch.ones_like(u[0])
    if alpha == 1:
        return u[0]
    return (_log_gamma(u[:_GAMMA], alpha) - _log_gamma(u[_GAMMA:], alpha)).sigmoid()


def _log_gamma(u: Float64[Tensor, "n"], alpha: float) -> Float64[Tensor, ""]:
    """The logarithm of a number of Gamma(alpha, 1): Marsaglia and Tsang, ACM TOMS 26 (2000), p. 363.

    All tries at once, the first accepted one taken, so that shapes are fixed.
    """
    d = (alpha + 1 if alpha < 1 else alpha) - 1 / 3
    x = torch.special.ndtri(u[:_TRIES])
    v = (1 + x / math.sqrt(9 * d)) ** 3
    log_v = v.clamp(min=1e-300).log()
    accepted = (v > 0) & (u[_TRIES:-1].log() < x**2 / 2 + d - d * v + d * log_v)
    found: Tensor = log_v.gather(0, accepted.int().argmax(0, keepdim=True))[0] + math.log(d)
    return found + u[-1].clamp(min=2.0**-54).log() / alpha if alpha < 1 else found
