"""Shortcuts that fade with depth: Zhang et al., "Residual Connections Harm Generative Representation
Learning", CVPR 2026, arXiv 2404.10947.

Of L blocks, the 2 L shortcuts (attention's and MLP's, in turn) are scaled: x <- a_k x + f_k(LN(x)), where a_k
falls linearly from 1 at the first to `least` at the last. That both shortcuts of a block have a factor of
their own is the authors' code, and their best row ("MLP + attention").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import get_args

import torch
from jaxtyping import Float
from timm.layers.norm import RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.networks import Network

Factors = tuple[tuple[float, float], ...]
"""For each block the factors of attention's and of the MLP's shortcut."""

PreNorm = Block | EvaBlock | BeitBlock
"""x + branch(norm(x)), twice; subclasses may do something else."""

_NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32)


def shortcut_factors(depth: int, least: float) -> Factors:
    """a_k for k of 2 `depth` shortcuts: 1 at the first, `least` at the last, linear between."""
    steps = 2 * depth - 1
    a = [1 - (1 - least) * k / steps for k in range(2 * depth)]
    return tuple(zip(a[::2], a[1::2], strict=True))


def products(factors: Factors) -> tuple[float, ...]:
    """c_l, the product of all factors up to and with block l: what is left of the embedded input there."""
    found, so_far = [], 1.0
    for pair in factors:
        so_far *= math.prod(pair)
        found.append(so_far)
    return tuple(found)


def decayed(
    block: PreNorm, factors: tuple[float, float], x: Float[Tensor, "B T D"], *extra: Tensor
) -> Float[Tensor, "B T D"]:
    """A pre-norm block of timm whose two shortcuts are scaled; `extra` is what its attention takes beside
    tokens (rotary positions, a bias)."""
    branch = block.drop_path1(_layer_scaled(block, 1, block.attn(block.norm1(x), *extra)))
    x = torch.add(branch, x, alpha=factors[0])
    branch = block.drop_path2(_layer_scaled(block, 2, block.mlp(block.norm2(x))))
    return torch.add(branch, x, alpha=factors[1])


def folded(
    vit: Network, factors: Factors, state: Mapping[str, Tensor], back: bool = False
) -> dict[str, Tensor]:
    """Weights of the plain network that computes the same: each branch over the product of the factors so
    far, its shortcut's own included.

    With p_k = a_1 ... a_k and y_k = x_k / p_k, x_k = a_k x_(k-1) + f_k(LN(x_(k-1))) reads
    y_k = y_(k-1) + f_k(LN(y_(k-1))) / p_k: exact up to the epsilon of the norms. `back` goes the other way,
    from a plain network's weights to those with which the decayed one computes the same.
    """
    found, product = dict(state), 1.0
    for i, (block, pair) in enumerate(zip(vit.blocks, factors, strict=True)):
        for branch, factor in enumerate(pair, start=1):
            product *= factor
            for name in _outputs(block, branch):
                key = f"blocks.{i}.{name}"
                found[key] = found[key] * product if back else found[key] / product
    return found


def check_foldable(vit: Network, least: float) -> None:
    """Raise where decayed shortcuts cannot be converted to weights for plain timm."""
    name = type(vit).__name__
    if not 0 < least <= 1:
        raise LaminaError(f"residual_decay is {least}; give a factor above 0 and at most 1")
    for block in vit.blocks:
        kind = type(block).__name__
        if not isinstance(block, PreNorm) or type(block) not in get_args(PreNorm):
            raise LaminaError(
                f"residual_decay does not fit the blocks of type {kind}, whose branches are not attention "
                "and MLP, each after a norm; leave it out, or use a plain ViT"
            )
        if not all(isinstance(m, nn.Linear) for m in (block.attn.proj, getattr(block.mlp, "fc2", None))):
            raise LaminaError(
                f"residual_decay does not fit {kind}: one of its branches does not end in a matrix; leave "
                "it out"
            )
    norms = [vit.norm, *(norm for block in vit.blocks for norm in (block.norm1, block.norm2))]
    if odd := [norm for norm in norms if not isinstance(norm, _NORMS)]:
        raise LaminaError(
            f"residual_decay does not fit a {name} with {type(odd[0]).__name__}, whose output depends on the "
            "scale of its input; leave it out"
        )


def _layer_scaled(block: nn.Module, branch: int, x: Tensor) -> Tensor:
    """As timm names it: a module in ViT, a parameter or None in Eva and Beit."""
    module = getattr(block, f"ls{branch}", None)
    if module is not None:
        return module(x)  # type: ignore[no-any-return]
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x


def _outputs(block: nn.Module, branch: int) -> Iterator[str]:
    """The parameters in which a branch is linear: its layer scale, else its last matrix and bias."""
    names = {name for name, _ in block.named_parameters()}
    for scale in (f"ls{branch}.gamma", f"gamma_{branch}"):
        if scale in names:
            yield scale
            return
    last = ("attn.proj", "mlp.fc2")[branch - 1]
    yield from (f"{last}.{part}" for part in ("weight", "bias") if f"{last}.{part}" in names)
