"""Weights files of any tool, read without running anything: tensors by name, and what is said beside them."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lamina.errors import LaminaError
from lamina.interop.foreign.described import Clues, Tensors
from lamina.interop.metadata import metadata_of

PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
FOLDER_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module")


class _Inert:
    """Stands in for whatever a checkpoint has beside tensors: takes anything, keeps and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# The configuration of SimMIM, and the logs of mmengine: their classes are neither needed nor called.
_NUMPY = ("multiarray._reconstruct", "multiarray.scalar")
_STAND_INS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "yacs.config.CfgNode"),
    *(
        (_Inert, name)
        for name in (
            "mmengine.logging.history_buffer.HistoryBuffer",
            "builtins.getattr",
            "numpy.ndarray",
            "numpy.dtype",
            *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY),
        )
    ),
]


def weights_in(place: Path) -> Path | None:
    """The weights file that a path means: itself, or in a folder one of the names that tools give it."""
    if place.is_dir():
        return next((place / name for name in FOLDER_FILES if (place / name).is_file()), None)
    return place if place.is_file() else None


def read_weights(path: str | Path) -> Tensors:
    """The tensors of a weights file by name, on the CPU, as they are called there.

    `.safetensors` is read as such; .pth, .pt, .bin, .tar and .ckpt through torch's restricted unpickler,
    which runs no code of the file. What is known to lie beside the tensors of MAE, SimMIM and mmpretrain is
    let in as data, or replaced by something that does nothing. Dictionaries that keep the weights under
    "model", "module" or "state_dict" are opened. A folder is one of transformers or of an export, whole or
    in shards.

    Raises:
        LaminaError: for a file that is not there, is damaged, or wants more than tensors unpickled.
    """
    return read_file(path)[0]


def read_file(path: str | Path) -> tuple[Tensors, Clues]:
    """As `read_weights`, and what the file, or the folder it lies in, says beside the tensors."""
    path = Path(path)
    file = weights_in(path)
    if file is None:
        raise LaminaError(f"there is no weights file {path / FOLDER_FILES[0] if path.is_dir() else path}")
    config, processor = {}, {}
    if file.name in FOLDER_FILES:
        config = _json(file.parent / "config.json")
        processor = _json(file.parent / "preprocessor_config.json")
    elif file.suffix == ".safetensors":
        with contextlib.suppress(LaminaError):  # another tool's, which says nothing of the weights
            config = _json(file.with_suffix(".json"))  # where exports for timm have it
    if file.name.endswith(".index.json"):
        return _read_shards(file), Clues(config, processor)
    if file.suffix == ".safetensors":
        return _read_safetensors(file), Clues(config, processor, lamina=metadata_of(file))
    if file.suffix not in PICKLES:
        raise LaminaError(f"{file.name} is no weights file; give .safetensors, or {', '.join(PICKLES)}")
    content = _read_pickle(file)
    args, meta = content.get("args"), content.get("meta")
    # mmengine has it under "cfg", mmcv before it under "config".
    text = meta.get("cfg", meta.get("config")) if isinstance(meta, Mapping) else None
    clues = Clues(
        config,
        processor,
        vars(args) if isinstance(args, argparse.Namespace) else {},
        text if isinstance(text, str) else "",
    )
    for _ in _WRAPPERS:  # no deeper: a pickled dictionary may hold itself
        content = next((content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)), content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise LaminaError(f"{file.name} holds no tensors under {', '.join(_WRAPPERS)} or at the top")
    return tensors, clues


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LaminaError(f"{file} is damaged: {str(error).splitlines()[0]}; fetch it again") from None
    if not isinstance(content, dict):
        raise LaminaError(f"{file} holds a {type(content).__name__}, not an object; fetch it again")
    return content


def _read_shards(index: Path) -> Tensors:
    parts = _json(index).get("weight_map")
    if not isinstance(parts, dict):
        raise LaminaError(f"{index} names no shards; fetch it again")
    names = sorted({str(name) for name in parts.values()})
    if any(Path(name).name != name for name in names):
        raise LaminaError(f"{index} names shards outside its folder; it is not read")
    tensors: Tensors = {}
    for name in names:
        tensors |= _read_safetensors(index.parent / name)
    return tensors


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise LaminaError(f"{path.name} is damaged or no safetensors file: {error}") from None


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file may fail in any way, and none of them is a bug of ours
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "unsupported" in str(error).lower():
            raise LaminaError(
                f"{path.name} wants to run code when it is read, so it was not; save it as .safetensors"
            ) from None
        if reason.startswith("Weights only load failed"):  # torch goes on to advise against the restriction
            reason = "its pickle makes no sense"
        raise LaminaError(f"{path.name} is damaged or no torch file: {reason}") from None
    if not isinstance(content, Mapping):
        raise LaminaError(f"{path.name} holds a {type(content).__name__}, not a dictionary of tensors")
    return content
