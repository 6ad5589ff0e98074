"""Frozen features judged by kNN and by a linear probe, always beside two baselines."""

from __future__ import annotations

from lamina.evaluate.features import Computing, Key, Table, backbone_vectors, collect, pixel_vectors
from lamina.evaluate.knn import KNNOptions, knn_predict, probe_knn
from lamina.evaluate.labelled import LabelledData, open_labelled
from lamina.evaluate.linear import LinearOptions, probe_linear
from lamina.evaluate.protocols import evaluate_knn, evaluate_linear, results_file
from lamina.evaluate.results import ProbeResult, Row, wilson_interval

__all__ = [
    "Computing",
    "KNNOptions",
    "Key",
    "LabelledData",
    "LinearOptions",
    "ProbeResult",
    "Row",
    "Table",
    "backbone_vectors",
    "collect",
    "evaluate_knn",
    "evaluate_linear",
    "knn_predict",
    "open_labelled",
    "pixel_vectors",
    "probe_knn",
    "probe_linear",
    "results_file",
    "wilson_interval",
]
