"""Supervised training: labels in place of a decoder, with MFF between the last block and the head (DeiT)."""

from __future__ import annotations

from lamina.supervised.labels import check_labels
from lamina.supervised.mixing import Draws, Mix, draw, mix_images, mix_labels, placed
from lamina.supervised.options import Pool, SupervisedOptions
from lamina.supervised.reading import AttentivePool, fold_batch_norm
from lamina.supervised.supervised import Supervised
from lamina.supervised.teacher import Standardised

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
