"""The methods of the field, each a composition of parts around a built timm ViT."""

from lamina.methods.guided import beit, eva, eva_tokens, maskfeat, milan
from lamina.methods.pixels import crossmae, mae, pixio, pixmim, simmim

__all__ = [
    "beit",
    "crossmae",
    "eva",
    "eva_tokens",
    "mae",
    "maskfeat",
    "milan",
    "pixio",
    "pixmim",
    "simmim",
]
