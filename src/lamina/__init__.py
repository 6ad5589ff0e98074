"""Pre-train plain Vision Transformers by masked image modelling, with Multi-level Feature Fusion.

The public names are imported when they are first used: importing torch and timm takes seconds, which
`lamina --help` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamina.core.former_paths import find_former_paths

if TYPE_CHECKING:
    from lamina.api import pretrain, recipe
    from lamina.cmae.cmae import CMAE
    from lamina.core.batch import Batch
    from lamina.core.errors import LaminaError
    from lamina.core.weight_init import init_vit_mae, init_vit_simmim
    from lamina.encoder.options import EncoderOptions
    from lamina.evaluate.probes import evaluate_knn, evaluate_linear
    from lamina.features.embed import embed
    from lamina.features.options import FeatureOptions
    from lamina.fusion.last_layer import LastLayer
    from lamina.fusion.layer_mix import LayerMix
    from lamina.fusion.mff import MultiLevelFusion
    from lamina.interop.export import export_timm
    from lamina.interop.export_classifier import load_supervised
    from lamina.interop.foreign.methods import load_foreign_method
    from lamina.interop.inspect import inspect
    from lamina.interop.load import load_encoder
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
    from lamina.recipes.recipe import Recipe
    from lamina.report.page import write_report
    from lamina.report.reconstructions import reconstruct_files
    from lamina.runs.run import load_method
    from lamina.supervised.classifier import Supervised
    from lamina.targets.teacher import Teacher
    from lamina.targets.token_ids import TokenIds
    from lamina.tokenizer.folder import load_tokenizer
    from lamina.tokenizer_training import train_tokenizer

__all__ = [
    "CMAE",
    "MIM",
    "Batch",
    "EncoderOptions",
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
    "api": ("pretrain", "recipe"),
    "cmae.cmae": ("CMAE",),
    "core.batch": ("Batch",),
    "core.errors": ("LaminaError",),
    "core.weight_init": ("init_vit_mae", "init_vit_simmim"),
    "encoder.options": ("EncoderOptions",),
    "evaluate.probes": ("evaluate_knn", "evaluate_linear"),
    "features.embed": ("embed",),
    "features.options": ("FeatureOptions",),
    "fusion.last_layer": ("LastLayer",),
    "fusion.layer_mix": ("LayerMix",),
    "fusion.mff": ("MultiLevelFusion",),
    "interop.export": ("export_timm",),
    "interop.export_classifier": ("load_supervised",),
    "interop.foreign.methods": ("load_foreign_method",),
    "interop.inspect": ("inspect",),
    "interop.load": ("load_encoder",),
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
    "recipes.recipe": ("Recipe",),
    "report.page": ("write_report",),
    "report.reconstructions": ("reconstruct_files",),
    "runs.run": ("load_method",),
    "supervised.classifier": ("Supervised",),
    "targets.teacher": ("Teacher",),
    "targets.token_ids": ("TokenIds",),
    "tokenizer.folder": ("load_tokenizer",),
    "tokenizer_training": ("train_tokenizer",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

find_former_paths()


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"lamina has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"lamina.{_MODULE_OF[name]}"), name)
