"""Training any module whose forward(batch) returns {"loss": ...}: loop, optimiser, checkpoints."""

from lamina.train.callbacks import Callback
from lamina.train.checkpoint import Checkpoint
from lamina.train.distributed import Ranks, is_main, process_group
from lamina.train.journal import CLOCK_FIELDS
from lamina.train.loop import Loader, fit
from lamina.train.optim import OptimOptions, learning_rate, param_groups
from lamina.train.options import Plan, TrainOptions, plan_run
from lamina.train.state import INTERRUPTED_EXIT_CODE, NONFINITE_EXIT_CODE, Outcome, TrainState

__all__ = [
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
    "fit",
    "is_main",
    "learning_rate",
    "param_groups",
    "plan_run",
    "process_group",
]
