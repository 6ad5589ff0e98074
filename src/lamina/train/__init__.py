"""Training any module whose forward(batch) returns {"loss": ...}: loop, optimiser, checkpoints."""

from lamina.train.callbacks import Callback
from lamina.train.checking import check_training
from lamina.train.checkpoint import Checkpoint
from lamina.train.distributed import Ranks, is_main, on_main, process_group
from lamina.train.divergence import check_trained, remedies, skipped_steps, why_useless
from lamina.train.loop import Loader, fit
from lamina.train.optim import OptimOptions
from lamina.train.options import Plan, TrainOptions, plan_run
from lamina.train.param_groups import param_groups
from lamina.train.rows import CLOCK_FIELDS
from lamina.train.schedule import learning_rate
from lamina.train.state import (
    BAD_FILES_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    NONFINITE_EXIT_CODE,
    Outcome,
    TrainState,
)

__all__ = [
    "BAD_FILES_EXIT_CODE",
    "CLOCK_FIELDS",
    "INTERRUPTED_EXIT_CODE",
    "NONFINITE_EXIT_CODE",
    "Callback",
    "Checkpoint",
    "Loader",
    "OptimOptions",
    "Outcome",
    "Plan",
    "Ranks",
    "TrainOptions",
    "TrainState",
    "check_trained",
    "check_training",
    "fit",
    "is_main",
    "learning_rate",
    "on_main",
    "param_groups",
    "plan_run",
    "process_group",
    "remedies",
    "skipped_steps",
    "why_useless",
]
