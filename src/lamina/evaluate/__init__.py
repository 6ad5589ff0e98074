"""Frozen features judged by kNN and by a linear probe, always beside two baselines."""

from __future__ import annotations

from lamina.evaluate.features import Computing, collect
from lamina.evaluate.knn import KNNOptions, knn_predict, probe_knn
from lamina.evaluate.labelled import LabelledData, open_labelled
from lamina.evaluate.linear import LinearOptions, probe_linear
from lamina.evaluate.protocols import evaluate_knn, evaluate_linear, judge, results_file
from lamina.evaluate.results import ProbeResult, Row, wilson_interval
from lamina.evaluate.table import Key, Table, Timing
from lamina.evaluate.vectors import BackboneVectors, FeatureOptions, PixelVectors, layer_vectors

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
