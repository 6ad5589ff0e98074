"""Images for training and evaluation: where they come from, how they are read, cropped and batched."""

from __future__ import annotations

from lamina.data.checking import BadFile, CheckResult, check
from lamina.data.counting import ClassCounts, check_counts, count_objects, count_pixels
from lamina.data.dense import IGNORE, MapSource, ObjectSource
from lamina.data.faults import FaultBudget, unread_notes
from lamina.data.files import printable
from lamina.data.loader import TrainLoader, eval_batches
from lamina.data.masks import MaskOptions
from lamina.data.notes import remark_lines
from lamina.data.opening import Spec, held_out, open_source
from lamina.data.opening_dense import Part, open_maps, open_objects
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import ArraySource, FileSource, Source, Split, Subset
from lamina.data.stats import channel_stats
from lamina.data.transforms import CenterCrop, RandomResizedCrop, SimpleResizedCrop
from lamina.data.unreadable import Reason, Unreadable

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
