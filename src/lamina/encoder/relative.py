"""Beit's tokens and relative positions: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR
2022, arXiv 2106.08254.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from timm.models.beit import Beit
from torch import Tensor


def add_class_token(
    vit: Beit, x: Float[Tensor, "B N D"]
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "heads T T"] | None]:
    """The class token before the embedded patches (mask tokens among them), absolute positions where there
    are any, and the bias that all blocks share where they do."""
    x = torch.cat((vit.cls_token.expand(len(x), -1, -1), x), dim=1)
    if vit.pos_embed is not None:
        x = x + vit.pos_embed
    return x, None if vit.rel_pos_bias is None else vit.rel_pos_bias()
