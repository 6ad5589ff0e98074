"""Frozen features judged by kNN and by a linear probe, always beside two baselines."""

from __future__ import annotations

from lamina.evaluate.probes import evaluate_knn, evaluate_linear, judge, results_file
from lamina.evaluate.results import ProbeResult, Row, wilson_interval
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
    "ProbeResult",
    "Row",
    "Table",
    "Timing",
    "collect",
    "evaluate_knn",
    "evaluate_linear",
    "judge",
    "knn_predict",
    "layer_vectors",
    "open_labelled",
    "probe_knn",
    "probe_linear",
    "results_file",
    "wilson_interval",
]
