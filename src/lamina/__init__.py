"""Pre-train plain Vision Transformers by masked image modelling, with Multi-level Feature Fusion.

The public names are imported when they are first used: importing torch and timm takes seconds, which
`lamina --help` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.api import pretrain, recipe
    from lamina.cmae.cmae import CMAE
    from lamina.core.batch import Batch
    from lamina.core.errors import LaminaError
    from lamina.core.weight_init import init_vit_mae, init_vit_simmim
    from lamina.evaluate.probes import evaluate_knn, evaluate_linear
    from lamina.features import FeatureOptions
    from lamina.features.embed import embed
    from lamina.fusion import LastLayer, LayerMix, MultiLevelFusion
    from lamina.interop import export_timm, inspect, load_encoder, load_foreign_method, load_supervised
    from lamina.methods import (
        beit,
        crossmae,
        eva,
        eva_tokens,
        mae,
        maskfeat,
        milan,
        pixio,
        pixmim,
        simmim,
    )
    from lamina.mim import MIM
    from lamina.recipes import Recipe
    from lamina.report import reconstruct_files, write_report
    from lamina.runs.run import load_method
    from lamina.supervised import Supervised
    from lamina.targets import Teacher, TokenIds
    from lamina.tokenizer import load_tokenizer
    from lamina.tokenizer_training import train_tokenizer

__all__ = [
    "CMAE",
    "MIM",
    "Batch",
    "FeatureOptions",
    "LaminaError",
    "LastLayer",
    "LayerMix",
    "MultiLevelFusion",
    "Recipe",
    "Supervised",
    "Teacher",
    "TokenIds",
    "beit",
    "crossmae",
    "embed",
    "eva",
    "eva_tokens",
    "evaluate_knn",
    "evaluate_linear",
    "export_timm",
    "init_vit_mae",
    "init_vit_simmim",
    "inspect",
    "load_encoder",
    "load_foreign_method",
    "load_method",
    "load_supervised",
    "load_tokenizer",
    "mae",
    "maskfeat",
    "milan",
    "pixio",
    "pixmim",
    "pretrain",
    "recipe",
    "reconstruct_files",
    "simmim",
    "train_tokenizer",
    "write_report",
]

_HOMES = {
    "cmae.cmae": ("CMAE",),
    "supervised": ("Supervised",),
    "tokenizer": ("load_tokenizer",),
    "tokenizer_training": ("train_tokenizer",),
    "api": ("pretrain", "recipe"),
    "core.batch": ("Batch",),
    "features.embed": ("embed",),
    "core.errors": ("LaminaError",),
    "evaluate.probes": ("evaluate_knn", "evaluate_linear"),
    "features": ("FeatureOptions",),
    "fusion": ("LastLayer", "LayerMix", "MultiLevelFusion"),
    "core.weight_init": ("init_vit_mae", "init_vit_simmim"),
    "interop": ("export_timm", "inspect", "load_encoder", "load_foreign_method", "load_supervised"),
    "methods": (
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
    ),
    "mim": ("MIM",),
    "recipes": ("Recipe",),
    "report": ("reconstruct_files", "write_report"),
    "runs.run": ("load_method",),
    "targets": ("Teacher", "TokenIds"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"lamina has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"lamina.{_MODULE_OF[name]}"), name)
