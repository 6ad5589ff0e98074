"""Pre-train plain Vision Transformers by masked image modelling, with Multi-level Feature Fusion."""

from lamina.batch import Batch
from lamina.errors import LaminaError
from lamina.fusion import LastLayer, MultiLevelFusion
from lamina.init import init_vit_mae, init_vit_simmim
from lamina.methods import mae, pixmim, simmim
from lamina.mim import MIM

__all__ = [
    "MIM",
    "Batch",
    "LaminaError",
    "LastLayer",
    "MultiLevelFusion",
    "init_vit_mae",
    "init_vit_simmim",
    "mae",
    "pixmim",
    "simmim",
]
