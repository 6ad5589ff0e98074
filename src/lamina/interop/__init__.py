"""Encoders from runs, weights files and timm; encoders handed over to timm."""

from __future__ import annotations

from lamina.interop.backbone import Backbone, FeatureKind, Features, Origin, Pool
from lamina.interop.export import Exported, export_timm
from lamina.interop.export_classifier import ExportedClassifier, export_supervised, load_supervised
from lamina.interop.foreign.methods import load_foreign_method, whole_method
from lamina.interop.handover import export_run
from lamina.interop.init_weights import start_from, with_epsilon_of
from lamina.interop.inspect import inspect
from lamina.interop.inspect_view import Inspection
from lamina.interop.load import (
    load_encoder,
    load_projected,
    locate_step,
    network_options,
    untrained_like,
    weights_of,
)
from lamina.interop.load_weights import Loaded, load_weights_into, read_weights
from lamina.interop.resizing import adopt, at_image_size

__all__ = [
    "Backbone",
    "Exported",
    "ExportedClassifier",
    "FeatureKind",
    "Features",
    "Inspection",
    "Loaded",
    "Origin",
    "Pool",
    "adopt",
    "at_image_size",
    "export_run",
    "export_supervised",
    "export_timm",
    "inspect",
    "load_encoder",
    "load_foreign_method",
    "load_projected",
    "load_supervised",
    "load_weights_into",
    "locate_step",
    "network_options",
    "read_weights",
    "start_from",
    "untrained_like",
    "weights_of",
    "whole_method",
    "with_epsilon_of",
]
