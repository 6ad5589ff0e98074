"""Supervised training: labels in place of a decoder, with MFF between the last block and the head (DeiT)."""

from __future__ import annotations

from lamina.supervised.classifier import Supervised
from lamina.supervised.labels import check_labels
from lamina.supervised.mixup import Draws, Mix, draw, mix_images, mix_labels, placed
from lamina.supervised.normalized import Standardised
from lamina.supervised.options import Pool, SupervisedOptions
from lamina.supervised.pooling import AttentivePool, fold_batch_norm

__all__ = [
    "AttentivePool",
    "Draws",
    "Mix",
    "Pool",
    "Standardised",
    "Supervised",
    "SupervisedOptions",
    "check_labels",
    "draw",
    "fold_batch_norm",
    "mix_images",
    "mix_labels",
    "placed",
]
