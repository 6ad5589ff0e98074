"""The blocks that a segmentation head reads, their tokens as maps, and maps at another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.ranges import check_blocks
from lamina.encoder.encoder import Encoder


class Taps(NamedTuple):
    """Patch tokens of some blocks as maps, and beside each map the mean of its class tokens, if there are
    any."""

    maps: list[Float[Tensor, "B D h w"]]
    cls: list[Float[Tensor, "B D"]] | None


class Logits(NamedTuple):
    """Logits of a head at a size of its own; in training perhaps also those of an auxiliary head, whose loss
    has the weight `share`."""

    main: Float[Tensor, "B K h w"]
    aux: Float[Tensor, "B K h2 w2"] | None = None
    share: float = 0.0


def spread_blocks(depth: int, of_twelve: Sequence[int]) -> tuple[int, ...]:
    """Blocks of a network of any depth, as far up as `of_twelve` are among twelve.

    (3, 5, 7, 11) become 7, 11, 15, 23 of 24, as BEiT has them. In shallow networks two may be one.
    """
    return tuple(max(0, round((block + 1) * depth / 12) - 1) for block in of_twelve)


def choose_blocks(depth: int, requested: tuple[int, ...] | None, of_twelve: Sequence[int]) -> tuple[int, ...]:
    """The blocks that were asked for, or the published ones, ascending.

    Raises:
        LaminaError: where the network has no such block, or there are not as many as the head reads.
    """
    blocks = spread_blocks(depth, of_twelve) if requested is None else requested
    if len(blocks) != len(of_twelve) or sorted(blocks) != list(blocks):
        raise LaminaError(f"blocks {blocks} do not fit this head; give {len(of_twelve)}, the lowest first")
    check_blocks("blocks", blocks, depth)
    return blocks


def resize_maps(values: Float[Tensor, "B K h w"], size: Sequence[int]) -> Float[Tensor, "B K H W"]:
    """Maps at another size, height and width, bilinearly between the centres of pixels."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)


def read_taps(
    encoder: Encoder, images: Shaped[Tensor, "B C H W"], blocks: Sequence[int], normed: bool
) -> Taps:
    """The outputs of blocks as maps; with `normed` each goes through the encoder's final norm."""
    rows, columns = encoder.grid_of(images)
    outputs = encoder(images, blocks)
    if normed:
        outputs = [encoder.norm(tokens) for tokens in outputs]
    maps = [
        tokens[:, encoder.n_prefix :].transpose(1, 2).unflatten(2, (rows, columns)).contiguous()
        for tokens in outputs
    ]
    n = encoder.n_class
    return Taps(maps, [tokens[:, :n].mean(1) for tokens in outputs] if n else None)
