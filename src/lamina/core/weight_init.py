"""Initialisation as the papers' code does it."""

from __future__ import annotations

import math

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lamina.core.patches import sincos_2d

Network = VisionTransformer | Eva | Beit


def init_mae(module: nn.Module) -> None:
    """Xavier-uniform matrices, zero biases, unit norms, tokens from N(0, 0.02^2) (MAE's code)."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
    _init_tokens(module)


def init_vit_mae(vit: Network) -> None:
    """`init_mae`, the patch embedding as one matrix (its bias as built), and fixed sine-cosine positions."""
    init_mae(vit)
    nn.init.xavier_uniform_(vit.patch_embed.proj.weight.data.flatten(1))
    fix_positions(vit)


def init_vit_simmim(vit: Network) -> None:
    """Truncated normals of 0.02; residual branches of block l scaled by 1 / sqrt(2 l) (SimMIM, after BEiT).

    Layer scales and relative position biases start as built, the latter at zero. A Beit's absolute positions,
    where it has any, are learned; those of the others are fixed sine-cosine here, since a plain ViT has no
    relative position biases, which SimMIM's and BEiT's own have.
    """
    for child in vit.modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
    _init_tokens(vit)
    for layer, block in enumerate(vit.blocks, start=1):
        for linear in _last_matrices(block):
            linear.weight.data.div_(math.sqrt(2 * layer))
    if not isinstance(vit, Beit):
        fix_positions(vit)
    elif vit.pos_embed is not None:
        nn.init.trunc_normal_(vit.pos_embed, std=0.02)


def zero_branches(vit: Network) -> None:
    """Zero the last matrix of each residual branch, so that blocks start as their shortcuts alone.

    arXiv 2404.10947 does so where shortcuts decay to factors below about 0.7, and norms would explode.
    """
    for block in vit.blocks:
        for linear in _last_matrices(block):
            nn.init.zeros_(linear.weight)


@torch.no_grad()
def fix_positions(vit: Network) -> None:
    """Overwrite learned absolute positions, where there are any, by fixed 2-D sines and cosines."""
    if vit.pos_embed is None:
        return
    table = sincos_2d(vit.embed_dim, vit.patch_embed.grid_size)
    vit.pos_embed.zero_()  # prefix tokens have no position
    vit.pos_embed[0, -len(table) :] = table
    vit.pos_embed.requires_grad_(False)


def _last_matrices(block: nn.Module) -> list[nn.Linear]:
    """The matrices that end a block's branches, called alike in ViT, Eva and Beit."""
    last = (getattr(block.attn, "proj", None), getattr(block.mlp, "fc2", None))
    return [linear for linear in last if isinstance(linear, nn.Linear)]


def _init_tokens(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("cls_token", "reg_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02)
