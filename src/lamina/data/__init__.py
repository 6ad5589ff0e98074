"""Images for training and evaluation: where they come from, how they are read, cropped and batched."""

from __future__ import annotations

from lamina.data.augment.crops import CenterCrop, RandomResizedCrop, SimpleResizedCrop
from lamina.data.check import BadFile, CheckResult, check
from lamina.data.decode.notes import remark_lines
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.class_counts import ClassCounts, check_counts, count_objects, count_pixels
from lamina.data.dense.mask_folder import MaskOptions
from lamina.data.dense.open import Part, open_maps, open_objects
from lamina.data.dense.sources import IGNORE, MapSource, ObjectSource
from lamina.data.file_names import printable
from lamina.data.loading.bad_files import FaultBudget, unread_notes
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.open import Spec, held_out, open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import ArraySource, FileSource, Source, Split, Subset
from lamina.data.stats import channel_stats

__all__ = [
    "IGNORE",
    "ArraySource",
    "BadFile",
    "CenterCrop",
    "CheckResult",
    "ClassCounts",
    "DataOptions",
    "Decoding",
    "FaultBudget",
    "FileSource",
    "MapSource",
    "MaskOptions",
    "ObjectSource",
    "Part",
    "RandomResizedCrop",
    "Reason",
    "SimpleResizedCrop",
    "Source",
    "Spec",
    "Split",
    "Subset",
    "TrainLoader",
    "Unreadable",
    "channel_stats",
    "check",
    "check_counts",
    "count_objects",
    "count_pixels",
    "eval_batches",
    "held_out",
    "open_maps",
    "open_objects",
    "open_source",
    "printable",
    "remark_lines",
    "unread_notes",
]
