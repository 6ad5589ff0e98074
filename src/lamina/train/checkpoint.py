"""Checkpoints: folders `step-N` that are whole and verified, or not there.

A folder holds model.safetensors, optimizer.safetensors, state.json, and manifest.json with the size and
SHA-256 of each (neither torch nor safetensors notices a flipped bit). It is built under a temporary name,
synced and renamed, so a crash at any moment leaves the earlier ones as they were. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.files import TEMPORARY, make_folder, remove_folder, replace_folder, sync
from lamina.core.plain_files import DamagedFile, check_plain, read_plain, sha256
from lamina.core.records import parse_json, sealed, unsealed
from lamina.train.shares import share_like

CHECKPOINTS = "checkpoints"
"""The folder of a run that holds them."""
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"
FORMAT = 1
MOST_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_NOT_OURS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RuntimeError,
    SafetensorError,
)
_SLACK_BYTES = 1 << 20


class Checkpoint(NamedTuple):
    """What a run needs to go on: weights by name, optimiser tensors by name, and JSON."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def model_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's state, but for what it declares as untracked.

    A module may define `untracked_state() -> set of key prefixes`, such as {"target.teacher."}, for parts
    that are frozen and come from elsewhere.
    """
    untracked = tuple(getattr(module, "untracked_state", set)())
    state: dict[str, Tensor] = module.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(untracked)}


def load_model_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put saved weights into a module; raises `LaminaError` where names or shapes differ."""
    own = model_tensors(module)
    if odd := sorted(set(own) ^ set(tensors)):
        side = "the checkpoint" if odd[0] in own else "this model"
        raise LaminaError(f"the checkpoint is of another model: {odd[0]!r} is missing in {side}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise LaminaError(
                f"the checkpoint is of another model: {name!r} is {tuple(tensor.shape)} there "
                f"and {tuple(own[name].shape)} here"
            )
    shares = {name: share_like(own[name], tensor) for name, tensor in tensors.items()}
    module.load_state_dict(shares, strict=False)


def write(folder: Path, step: int, content: Checkpoint) -> Path:
    """Save a checkpoint as `folder/step-N` and return that path.

    Raises `LaminaError` where it cannot be written (a full disk), with the earlier ones left as they were.
    """
    make_folder(folder)
    path = folder / f"step-{step}"
    temporary = folder / f"{TEMPORARY}step-{step}"
    shutil.rmtree(temporary, ignore_errors=True)
    tensors = {MODEL: _apart(content.model), OPTIMIZER: _apart(content.optimizer)}
    needed = sum(t.nbytes for part in tensors.values() for t in part.values()) + _SLACK_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _no_room(folder, step, needed, f"only {_mib(free)} are free")
    try:
        _write_files(temporary, step, tensors, content.state)
        replace_folder(temporary, path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _no_room(folder, step, needed, str(error)) from error
    return path


def _write_files(
    temporary: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]
) -> None:
    temporary.mkdir()
    for name, part in tensors.items():
        save_file(part, temporary / name)
    (temporary / STATE).write_bytes(f"{json.dumps(state, indent=1)}\n".encode())
    files = {}
    for name in (MODEL, OPTIMIZER, STATE):
        sync(temporary / name)
        files[name] = {"size": (temporary / name).stat().st_size, "sha256": sha256(temporary / name)}
    made_by = {"lamina": version("lamina"), "torch": torch.__version__}
    manifest = sealed({"format": FORMAT, "step": step, "files": files, **made_by})
    (temporary / MANIFEST).write_bytes(manifest.encode())
    sync(temporary / MANIFEST)
    sync(temporary)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and each with memory of its own, as safetensors wants them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().nbytes() != own.nbytes or own.data_ptr() in seen:
            own = own.clone()
        seen.add(own.data_ptr())
        result[name] = own
    return result


def _no_room(folder: Path, step: int, needed: int, reason: str) -> LaminaError:
    kept = steps(folder)
    last = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no earlier one"
    return LaminaError(
        f"the checkpoint of step {step} could not be written to {folder} ({reason}): "
        f"it needs {_mib(needed)}; {last}; free some space and go on with --resume"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def verify(path: Path) -> str | None:
    """None for a checkpoint that is whole; else what is wrong with it, in a few words."""
    try:
        manifest = unsealed(read_plain(path / MANIFEST, MOST_MANIFEST_BYTES))
        if manifest is None:
            return f"{MANIFEST} was changed"
        return _misfit(path, manifest) or _damage(path, manifest["files"])
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except DamagedFile as error:
        return f"{error.file.name}: {error.reason}"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _misfit(path: Path, manifest: Mapping[str, Any]) -> str | None:
    """Why a manifest, whose seal anybody can make, is not one that `write` made for this folder."""
    if manifest.get("format") != FORMAT:
        return f"its format is {manifest.get('format')}, this version reads {FORMAT}"
    match = _NAME.fullmatch(path.name)
    if match is None or int(match[1]) != manifest.get("step"):
        return f"it is of step {manifest.get('step')}, not what its name says"
    files = manifest.get("files")
    if not isinstance(files, dict) or files.keys() != {MODEL, OPTIMIZER, STATE}:
        return f"{MANIFEST} lists other files than lamina writes"
    if not all(isinstance(entry, dict) and entry.keys() == {"size", "sha256"} for entry in files.values()):
        return f"{MANIFEST} does not say size and SHA-256 of each file"
    return None


def _damage(path: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name, entry in files.items():
        check_plain(path / name)
        size = (path / name).stat().st_size
        if size != entry["size"]:
            return f"{name} has {size} bytes instead of {entry['size']}"
        if sha256(path / name) != entry["sha256"]:
            return f"{name} was changed"
    return None


def verify_weights(file: Path) -> str | None:
    """As `verify` of the checkpoint that a weights file is a part of; None for a file outside of any."""
    if file.name != MODEL or not (file.parent / MANIFEST).is_file():
        return None
    return verify(file.parent)


def read(path: Path) -> Checkpoint:
    """A checkpoint's content, on the CPU; raises `LaminaError` where it is damaged."""
    if reason := verify(path):
        raise LaminaError(f"the checkpoint {path} is damaged ({reason}); use an earlier one")
    return read_verified(path)


def read_verified(path: Path) -> Checkpoint:
    """The content of a checkpoint that was verified just now (`newest_good` did)."""
    with understood(path):
        return Checkpoint(load_file(path / MODEL), load_file(path / OPTIMIZER), read_state(path))


def read_state(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint; raises `LaminaError` where it is none."""
    with understood(path):
        return {**parse_json(read_plain(path / STATE))}


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Say in one line that a checkpoint's state, though whole, is none that this version writes."""
    try:
        yield
    except (LaminaError, torch.OutOfMemoryError):
        raise
    except _NOT_OURS as error:
        raise LaminaError(
            f"the checkpoint {path} cannot be resumed from: its {STATE} is not what this version writes "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); use an earlier one"
        ) from error


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` has a checkpoint, ascending; none where there is no folder."""
    if not folder.is_dir():
        return []
    names = (_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(name[1]) for name in names if name)


def newest_good(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; `say` gets a line for each damaged one passed over.

    None where there is none at all; `LaminaError` where there are some and all are damaged.
    """
    found = steps(folder)
    for step in reversed(found):
        path = folder / f"step-{step}"
        reason = verify(path)
        if reason is None:
            return path
        say(f"the checkpoint of step {step} is damaged ({reason}); trying the one before it")
    if found:
        raise LaminaError(f"all checkpoints in {folder} are damaged; start again with --overwrite")
    return None


def remove_unfinished(folder: Path) -> None:
    """Remove what a crash left half-written."""
    if folder.is_dir():
        for stray in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()


class Retention:
    """Keeps the newest `keep` good checkpoints of a folder, and the newest of them that is proven.

    Damaged ones do not count. Those that `sound` denies are counted by themselves, so that a run that
    diverges does not push out the checkpoints from before. `proven` is the step up to which a checkpoint says
    that weights are known to be of use; that of a checkpoint itself is known only to later ones. Where none
    of the newest `keep` is proven, the newest that is stays beside them. A folder is verified once, and again
    when its files' sizes or times change.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        sound: Callable[[Path], bool] = lambda path: True,
        proven: Callable[[Path], int] = lambda path: sys.maxsize,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.sound = sound
        self.proven = proven
        self._good: dict[int, list[tuple[str, int, int]]] = {}

    def prune(self) -> None:
        """Remove what is older than those."""
        kept, proven_up_to, has_proven = {True: 0, False: 0}, -1, False
        for step in reversed(steps(self.folder)):
            path = self.folder / f"step-{step}"
            if kept[True] >= self.keep and has_proven:
                remove_folder(path)
            elif self._is_good(step):
                proven_up_to = max(proven_up_to, self.proven(path))
                sound = self.sound(path)
                proven = sound and step <= proven_up_to
                kept[sound] += 1
                if kept[sound] > self.keep and (has_proven or not proven):
                    remove_folder(path)
                has_proven |= proven

    def _is_good(self, step: int) -> bool:
        path = self.folder / f"step-{step}"
        now = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in path.iterdir())
        if self._good.get(step) != now and verify(path) is None:
            self._good[step] = now
        return self._good.get(step) == now
