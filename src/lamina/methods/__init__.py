"""The methods of the field: a file each, with its recipes and its constructor around a built timm ViT."""

from lamina.methods.beit import beit
from lamina.methods.crossmae import crossmae
from lamina.methods.eva import eva, eva_tokens
from lamina.methods.mae import mae
from lamina.methods.maskfeat import maskfeat
from lamina.methods.milan import milan
from lamina.methods.pixio import pixio
from lamina.methods.pixmim import pixmim
from lamina.methods.simmim import simmim

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
