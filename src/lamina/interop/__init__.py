"""Encoders from runs, weights files and timm; encoders handed over to timm."""

from __future__ import annotations

from lamina.interop.backbone import Backbone, FeatureKind, Features, Origin, Pool
from lamina.interop.classifier import (
    export_classifier,
    export_timm_classifier,
    load_classifier,
)
from lamina.interop.export import EncoderExport, Exported, export_timm
from lamina.interop.handover import export_run
from lamina.interop.loading import load_encoder, untrained_like
from lamina.interop.starting import start_from
from lamina.interop.weights import Loaded, load_weights_into, read_weights

__all__ = [
    "Backbone",
    "EncoderExport",
    "Exported",
    "FeatureKind",
    "Features",
    "Loaded",
    "Origin",
    "Pool",
    "export_classifier",
    "export_run",
    "export_timm",
    "export_timm_classifier",
    "load_classifier",
    "load_encoder",
    "load_weights_into",
    "read_weights",
    "start_from",
    "untrained_like",
]
