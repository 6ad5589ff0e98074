"""Frozen features: computed once per image, kept, and read by kNN and by a linear probe."""

from __future__ import annotations

from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import Computing, collect
from lamina.features.knn import KNNOptions, knn_predict, probe_knn
from lamina.features.linear import LinearOptions, probe_linear
from lamina.features.pooling import BackboneVectors, FeatureOptions, PixelVectors, layer_vectors
from lamina.features.table import Key, Table, Timing

__all__ = [
    "BackboneVectors",
    "Computing",
    "FeatureOptions",
    "KNNOptions",
    "Key",
    "LabelledData",
    "LinearOptions",
    "PixelVectors",
    "Table",
    "Timing",
    "collect",
    "knn_predict",
    "layer_vectors",
    "open_labelled",
    "probe_knn",
    "probe_linear",
]
