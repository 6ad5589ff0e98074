"""Which settings may change when a folder is resumed: one list of free ones; all others are refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.core.config import flatten, to_mapping
from lamina.core.errors import LaminaError
from lamina.data.options import raised_limits
from lamina.runs.resumable_folder import ResumableFolder, begin_on_main
from lamina.train.distributed import Ranks, on_main
from lamina.train.divergence import remedies
from lamina.train.options import TrainOptions

FREE = (
    "workers",
    "prefetch_batches",
    "worker_timeout_seconds",
    "bad_files_max_share",
    "bad_files_min",
    "device",
    "shard",
    "checkpoint_every_steps",
    "checkpoint_every_seconds",
    "checkpoint_async",
    "keep_checkpoints",
    "nonfinite_limit",
    "tensorboard",
)
"""Last parts of the dotted names of options that a resume may change: no weight and no score depends on them.
Those of the group `monitor` are free too."""


def is_free(name: str) -> bool:
    """Whether a resume may change the option of that dotted name."""
    return name.startswith("monitor.") or name.rpartition(".")[2] in FREE


def free_names(options: Any) -> tuple[str, ...]:
    """The dotted names of the fields in a tree of options that a resume may change."""
    return tuple(name for name in flatten(to_mapping(options)) if is_free(name))


def changes_on_resume(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    file: Path,
    training: TrainOptions | None = None,
    unread: Collection[str] = (),
) -> dict[str, tuple[Any, Any]]:
    """The settings that a resumed training changes and that have to be written down, each with its value of
    before and of now.

    These are limits of a file's size and time that are raised (`raised_limits`), and, of a training that
    stopped for non-finite losses, its learning rate, clipping or precision (`remedies`).

    Args:
        before, now: all settings by dotted names.
        file: where those of before are kept, in the folder of the training.
        training: the training options of now; None where nothing is trained.
        unread: names that neither of the two has a use for.

    Raises:
        LaminaError: for any other change; free settings (`is_free`) may change without a word.
    """
    names = [name for name in {**before, **now} if not is_free(name) and name not in unread]
    changed = {n: (before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)}
    mended = () if training is None else remedies(file.parent, training, changed)
    allowed = {n: change for n, change in changed.items() if n in mended} | raised_limits(changed)
    if refused := [name for name in changed if name not in allowed]:
        raise LaminaError(
            f"--resume goes on with the settings in {file}, but these differ: {', '.join(refused)}; leave "
            "them out, or start a new one in another folder"
        )
    return allowed


def print_raised_limits(changed: Mapping[str, tuple[object, object]]) -> None:
    """Say of each limit of files that a resume raises that more images are read from there on."""
    for name, (before, now) in raised_limits(changed).items():
        print(
            f"{name} was {before} and is now {now}: images between the two are read from here on", flush=True
        )


def begin_or_change(
    ranks: Ranks,
    folder: ResumableFolder | None,
    begin: Callable[[], object],
    changed: Mapping[str, tuple[object, object]] | None,
    change: Callable[[], object],
) -> None:
    """On rank 0, while the others wait: make room in `folder` and `begin` a new training; of one that goes on
    write down, by `change`, the options that are `changed` (None: it is new; empty: nothing is written)."""

    def print_and_change() -> None:
        print_raised_limits(changed or {})
        change()

    if changed is None:
        begin_on_main(ranks, folder, begin)
    elif changed:
        on_main(ranks, print_and_change)


def check_same_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], holds: str, mend: str, later: Sequence[str] = ()
) -> None:
    """Refuse to go on with measurements that were made with other settings.

    Args:
        before, now: the settings on disk and those of this call.
        holds: the folder or file and what it holds, such as "out/x holds a study".
        mend: what the user can do.
        later: settings that files of earlier versions do not have; they are not compared there.
    """
    names = [name for name in {**before, **now} if name in before or name not in later]
    if changed := sorted(name for name in names if before.get(name) != now.get(name)):
        raise LaminaError(f"{holds} with other settings ({', '.join(changed)}); {mend}")
