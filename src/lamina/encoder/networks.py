"""Which networks of timm an encoder may be, the layer of each parameter, and the epsilon of layer norms."""

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
            f"{name} is not a VisionTransformer, Eva or Beit of timm; other networks have no positions, or "
            "positions that need the full grid"
        )
    if isinstance(vit.norm, nn.Identity):
        raise LaminaError(
            f"this {name} has no final norm before its pooling; build it with fc_norm=False "
            "(Eva and Beit: use_fc_norm=False)"
        )
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise LaminaError(
            f"this {name} does not embed patches by one convolution (it may be a hybrid); use a plain ViT"
        )
    if getattr(getattr(vit, "patch_drop", None), "prob", 0) or getattr(vit.pos_drop, "p", 0):
        raise LaminaError(
            f"this {name} drops patches or positions at random; build it with patch_drop_rate=pos_drop_rate=0"
        )
    return vit


def layer_ids(task: nn.Module, depth: int) -> dict[str, int]:
    """The layer of each trained parameter, as in BEiT, MAE and ViTDet: 0 for the embedding, i + 1 for block
    i, depth + 1 for the final norm and all above.

    Args:
        task: a module whose `encoder` is an `Encoder`. depth: blocks of that.
    """
    trained = (name for name, parameter in task.named_parameters() if parameter.requires_grad)
    return {name: _layer(name, depth) for name in trained}


def _layer(name: str, depth: int) -> int:
    part = name.removeprefix("encoder.vit.")
    if part == name or part.startswith("norm."):
        return depth + 1
    return int(part.split(".")[1]) + 1 if part.startswith("blocks.") else 0


def set_epsilon(module: nn.Module, eps: float) -> None:
    """Give all layer norms that epsilon."""
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            child.eps = eps


def epsilon_of(module: nn.Module) -> float | None:
    """The epsilon of the first layer norm; None where there is none."""
    return next((child.eps for child in module.modules() if isinstance(child, nn.LayerNorm)), None)
