"""A fusion beside an encoder whose residual decay was folded away: the scales of its taps, folded too."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.fusion.build import Fusion
from lamina.fusion.layer_mix import LayerMix
from lamina.fusion.mff import MultiLevelFusion


@torch.no_grad()
def fold_fusion(fusion: Fusion, scales: Sequence[float]) -> Fusion:
    """The fusion which, given taps x_i / scales_i, computes what `fusion` computes of x_i, after its norm.

    A mix scales its weights. MFF scales the first matrix of each projection; where taps are averaged, those
    without one have their scale in the softmax weights, whose common factor the final norm undoes (up to its
    epsilon). Where taps are attended, projections give what the last tap is short of, and queries, keys and
    values make up for it.

    Raises:
        LaminaError: for attention over taps without projections: its keys and values are the same matrices
            for all taps, which have different scales.
    """
    if all(scale == 1 for scale in scales):
        return fusion
    new = copy.deepcopy(fusion)
    if isinstance(new, LayerMix):
        new.weight.mul_(new.weight.new_tensor(scales))
    elif isinstance(new, MultiLevelFusion):
        _fold_mff(new, scales)
    return new


def _fold_mff(new: MultiLevelFusion, scales: Sequence[float]) -> None:
    chains = [_matrices(projection) for projection in new.projections]
    for chain, scale in zip(chains, scales, strict=False):
        if chain:
            chain[0].weight.mul_(scale)
    logits = getattr(new.pool, "logits", None)
    if logits is not None:
        plain = [not chain for chain in chains] + [True]
        logits.add_(logits.new_tensor([math.log(s) if p else 0 for p, s in zip(plain, scales, strict=True)]))
        return
    if not all(chains):
        raise LaminaError(
            "a fusion by attention without projections cannot be exported from a network with "
            "residual_decay; train with --fusion.projection linear"
        )
    last = scales[-1]
    for chain in chains:
        chain[-1].weight.div_(last)
        chain[-1].bias.div_(last)
    for matrix in (new.pool.q, new.pool.k, new.pool.v):
        assert isinstance(matrix, nn.Linear)
        matrix.weight.mul_(last)


def _matrices(projection: nn.Module) -> list[nn.Linear]:
    return [module for module in projection.modules() if isinstance(module, nn.Linear)]
