"""Which of timm's networks an encoder may be, and what it asks of them."""

from __future__ import annotations

from timm.layers.patch_embed import PatchEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lamina.core.errors import LaminaError

Network = VisionTransformer | Eva | Beit


def checked(vit: nn.Module) -> Network:
    """The network itself; raises where its positions, patches or final norm do not allow masked modelling."""
    name = type(vit).__name__
    if not isinstance(vit, VisionTransformer | Eva | Beit):
        raise LaminaError(
            f"{name} is not a timm VisionTransformer, Eva or Beit; other networks tie positions to the full "
            "grid, or have none"
        )
    if isinstance(vit.norm, nn.Identity):
        raise LaminaError(
            f"this {name} has no final norm before its pooling; build it with fc_norm=False "
            "(Eva and Beit: use_fc_norm=False)"
        )
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise LaminaError(f"this {name} embeds patches by something other than one convolution (a hybrid?)")
    if getattr(getattr(vit, "patch_drop", None), "prob", 0) or getattr(vit.pos_drop, "p", 0):
        raise LaminaError(
            f"this {name} drops patches or positions at random; build it with patch_drop_rate=pos_drop_rate=0"
        )
    return vit
