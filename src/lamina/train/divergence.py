"""Runs whose loss or gradient stopped being finite: how they are detected, and from where they resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.files import remove_folder
from lamina.train.checkpoint import (
    CHECKPOINTS,
    MODEL,
    model_tensors,
    newest_good,
    read_state,
    steps,
    understood,
    verify,
)
from lamina.train.options import TrainOptions
from lamina.train.precision import scale_is_lost
from lamina.train.shares import own_share
from lamina.train.state import NONFINITE_EXIT_CODE, TrainState

REMEDIES = ("base_lr", "clip_grad", "precision")
"""Last parts of the names of options that a diverged run may change when it goes on."""

Say = Callable[[str], None]


class Diverged(LaminaError):
    """A run that stopped for non-finite steps and is resumed with unchanged options."""

    exit_code = NONFINITE_EXIT_CODE


def most_nonfinite(options: TrainOptions, total_steps: int) -> int:
    """Steps that may be skipped for a loss or gradient that is not finite: at most half of a short run."""
    return min(options.nonfinite_limit, total_steps // 2)


def never_stepped(state: TrainState) -> bool:
    """Whether every step so far was skipped: the weights are those of the beginning."""
    return state.step > 0 and max(state.skipped_in_a_row, state.nonfinite) >= state.step


def weights_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all numbers (this rank's share of them) are finite; waits for the device."""
    flags = [
        torch.isfinite(own_share(tensor)).all() for tensor in tensors.values() if tensor.is_floating_point()
    ]
    return not flags or bool(torch.stack(flags).all())


def module_finite(module: nn.Module) -> bool:
    """As `weights_finite`, of what a checkpoint of the module holds."""
    return weights_finite(model_tensors(module))


def remedies(run: Path, options: TrainOptions, changed: Iterable[str]) -> list[str]:
    """Those of the `changed` options (dotted names) that a resume may change: `REMEDIES`, where the newest
    checkpoint of the folder `run` is of a training that stopped for non-finite steps.

    Nothing is verified: `starting_point` does that before anything is changed."""
    folder = run / CHECKPOINTS
    found, names = steps(folder), [name for name in changed if name.rpartition(".")[2] in REMEDIES]
    return names if names and found and _diverged(folder / f"step-{found[-1]}", options) else []


def starting_point(
    folder: Path, options: TrainOptions, facts: Mapping[str, Any], say: Say
) -> tuple[Path | None, bool]:
    """The checkpoint that a resume goes on from, None for the beginning; and whether later ones, of a run
    that diverged, were removed for it.

    That is the newest one that is whole. Where the run diverged there, it goes on only with another value of
    one of `REMEDIES` (`facts` has those of now), from the newest checkpoint before.

    Raises:
        Diverged: where nothing was changed, with the checkpoints left as they are.
        LaminaError: where all checkpoints are damaged.
    """
    newest = newest_good(folder, say)
    if newest is None or not _diverged(newest, options):
        return newest, False
    before = _newest_proven(folder)
    place = "the beginning" if before is None else f"the checkpoint of step {before}"
    saved = read_state(newest)
    facts_then = saved["run"]
    # A checkpoint of an earlier version does not say all of them: what cannot be compared counts as changed.
    changed = [name for name in REMEDIES if name not in facts_then or facts_then[name] != facts[name]]
    if not changed:
        raise Diverged(_refusal(saved, options, place))
    for step in steps(folder):
        if before is None or step > before:
            remove_folder(folder / f"step-{step}")
    new = ", ".join(f"{name} {facts[name]} in place of {facts_then.get(name, '?')}" for name in changed)
    say(f"the run diverged after {place}; it goes on from there with {new}")
    return (None if before is None else folder / f"step-{before}"), True


def is_sound(path: Path) -> bool:
    """Whether the weights of a checkpoint are finite and its last step was not skipped. It was verified
    before."""
    state = _state(path)
    return state.skipped_in_a_row == 0 and why_useless(path) is None


def why_useless(path: Path) -> str | None:
    """None for a checkpoint whose weights training has changed, whose numbers are finite, and before which no
    more steps were skipped than may be; else why there is nothing to evaluate, export or start from. The
    checkpoint was verified before."""
    state = _state(path)
    if never_stepped(state):
        return "each of its steps had a loss or gradient that is not finite, so nothing was trained"
    if state.nonfinite > (most := _most_then(path, state)):
        return (
            f"its training diverged: {state.nonfinite} of {state.step} steps had a loss or gradient that is "
            f"not finite, more than the {most} that are allowed"
        )
    if not _finite(path):
        return "its weights are not finite numbers"
    return None


def skipped_steps(path: Path) -> str | None:
    """How many steps before a checkpoint changed nothing, in words; None where all of them counted."""
    state = _state(path)
    if not state.nonfinite:
        return None
    return (
        f"step {state.step} of {state.total_steps}; {state.nonfinite} steps were skipped, whose loss or "
        "gradient was not finite"
    )


def check_trained(path: Path) -> None:
    """Raise `LaminaError` for a checkpoint without trained weights; it was verified before."""
    if (reason := why_useless(path)) is None:
        return
    proven = _newest_proven(path.parent)
    way = "train again with --overwrite" if proven is None else f"take the one of step {proven}"
    raise LaminaError(
        f"{path} cannot be used: {reason}; {way}, or resume with --resume and another {_or(REMEDIES)}"
    )


def proven_step(path: Path) -> int:
    """The newest step whose weights a checkpoint knows to be of use; it was verified before. A checkpoint of
    an earlier version does not say it: then the step from which its last step was taken."""
    if "proven_step" in read_state(path).get("train", {}):
        return _state(path).proven_step
    state = _state(path)
    return max(state.step - state.skipped_in_a_row - 1, 0)


def _newest_proven(folder: Path) -> int | None:
    """The newest step with a sound checkpoint from which a later one knows that training went on well.

    With the weights of any later one each step had a loss or gradient that is not finite, whatever the rate
    of the next update: to go on from there would end in the same way."""
    proven = 0
    for step in reversed(steps(folder)):
        path = folder / f"step-{step}"
        if verify(path) is None:
            proven = max(proven, proven_step(path))
            if step <= proven and is_sound(path):
                return step
    return None


def _diverged(path: Path, options: TrainOptions) -> bool:
    try:
        state = _state(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # damaged, which its verification says
    if state.nonfinite > most_nonfinite(options, state.total_steps):
        return True
    if scale_is_lost(read_state(path).get("scaler") or {}):
        return True
    return (state.step >= state.total_steps and never_stepped(state)) or not _finite(path)


def _refusal(saved: Mapping[str, Any], options: TrainOptions, place: str) -> str:
    train = saved["train"]
    most = most_nonfinite(options, int(train["total_steps"]))
    more = f", or a nonfinite_limit above {train['nonfinite']}" if most == options.nonfinite_limit else ""
    return (
        f"the run stopped at step {train['step']} because losses or gradients were not finite, and would "
        f"stop there again; give --resume another {_or(REMEDIES)}, and it goes on from {place}{more}"
    )


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _finite(path: Path) -> bool:
    """Whether the weights are finite: as its state has it or, of an earlier version, as the tensors are."""
    finite = read_state(path).get("weights_finite")
    return bool(finite) if finite is not None else weights_finite(load_file(path / MODEL))


def _most_then(path: Path, state: TrainState) -> int:
    """Steps that might be skipped when the checkpoint was written. One of an earlier version does not say its
    limit: more than half of the run is above any."""
    limit = read_state(path).get("most_nonfinite")
    return int(limit) if limit is not None else state.total_steps // 2


def _state(path: Path) -> TrainState:
    with understood(path):
        return merge(TrainState(0), read_state(path).get("train", {}))
