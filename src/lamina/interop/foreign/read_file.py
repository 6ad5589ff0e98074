"""Reads weights files of any tool without running code: tensors by name, and what is stored beside them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lamina.core.errors import LaminaError
from lamina.core.records import read_object
from lamina.core.tensor_files import load_tensors
from lamina.interop.foreign.format import Clues, Tensors
from lamina.interop.foreign.unpickling import PICKLES, read_pickle
from lamina.interop.metadata import AGAIN, metadata_of
from lamina.train import checkpoint

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module")


def weights_in(place: Path) -> Path | None:
    """The weights file of a path: the file itself, FILE of FILE@KEY, or in a folder a file with one of the
    names that tools give it; None where there is none."""
    if place.is_dir():
        return next((place / name for name in FOLDER_FILES if (place / name).is_file()), None)
    return _keyed(place)[0] if place.is_file() or _keyed(place)[0].is_file() else None


def _keyed(place: Path) -> tuple[Path, str]:
    """FILE@KEY as the file and the key; of any other path itself and no key."""
    name, _, key = place.name.rpartition("@")
    keyed = bool(name) and not place.exists() and Path(name).suffix in PICKLES
    return (place.with_name(name), key) if keyed else (place, "")


def read_weights(path: str | Path) -> Tensors:
    """The tensors of a weights file by name, on the CPU, as they are called there.

    `.safetensors` is read as such; .pth, .pt, .bin, .tar and .ckpt through torch's restricted unpickler,
    which runs no code of the file (`read_pickle`). Dictionaries that keep the weights under "model", "module"
    or "state_dict" are opened, and any other that is the only one with a network in it; FILE@KEY names one of
    several ("dino.pth@teacher"). A folder is one of transformers or of an export, whole or in shards.

    Raises:
        LaminaError: for a file that is missing, damaged, or contains more than tensors and plain data.
    """
    return read_file(path)[0]


def read_file(path: str | Path) -> tuple[Tensors, Clues]:
    """As `read_weights`, with the other content of the file and of the folder that it lies in."""
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
    wanted = "" if path.is_dir() else _keyed(path)[1]
    if file.name.endswith(".index.json"):
        return _read_shards(file), Clues(config, processor)
    if file.suffix == ".safetensors":
        return _read_safetensors(file), Clues(config, processor, lamina=metadata_of(file))
    if file.suffix not in PICKLES:
        raise LaminaError(
            f"{file.name} is no weights file; give a file ending in .safetensors, {', '.join(PICKLES)}"
        )
    content = read_pickle(file)
    args, meta = content.get("args"), content.get("meta")
    # mmengine has it under "cfg", mmcv before it under "config".
    text = meta.get("cfg", meta.get("config")) if isinstance(meta, Mapping) else None
    found, key, beside = _opened(content, file.name, wanted)
    clues = Clues(
        config,
        processor,
        vars(args) if isinstance(args, argparse.Namespace) else {},
        text if isinstance(text, str) else "",
        key=key,
        beside=beside,
    )
    tensors = _tensors(found)
    if not tensors:
        raise LaminaError(
            f"{file.name} has no tensors under {', '.join(_WRAPPERS)} or at the top level; give another file"
        )
    return tensors, clues


def _opened(
    content: Mapping[Any, Any], name: str, wanted: str
) -> tuple[Mapping[Any, Any], str, tuple[str, ...]]:
    """The dictionary with the weights: the one under the key `wanted`, else under a usual key of tools, else
    the only one with a network in it; then its key, and the keys of the others."""
    there = [str(key) for key, value in content.items() if _has_network(value)]
    if wanted:
        if wanted not in there:
            listed = ", ".join(there) or "none"
            raise LaminaError(f"{name} has no weights under {wanted!r}; there are: {listed}")
        return content[wanted], wanted, ()
    key = ""
    for _ in _WRAPPERS:  # no deeper: a pickled dictionary may hold itself
        inner = next((w for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        key, content = key or inner, content[inner]
    if key or _tensors(content):
        return content, key, tuple(other for other in there if other != key)
    if len(there) > 1:
        raise LaminaError(
            f"{name} has several networks, under {', '.join(there)}; name one of them, as in "
            f"{name}@{there[-1]}"
        )
    return (content[there[0]], there[0], ()) if there else (content, "", ())


def _tensors(content: Mapping[Any, Any]) -> Tensors:
    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _has_network(value: Any) -> bool:
    """Whether it is a dictionary that has a tensor of four axes, as the kernel of a patch embedding is."""
    return isinstance(value, Mapping) and any(tensor.ndim == 4 for tensor in _tensors(value).values())


def _json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        return read_object(file, links=True, mend="fetch it again")
    except FileNotFoundError:
        return {}


def _read_shards(index: Path) -> Tensors:
    parts = _json(index).get("weight_map")
    if not isinstance(parts, dict):
        raise LaminaError(f"{index} does not list its weights files; fetch it again")
    names = sorted({str(name) for name in parts.values()})
    if any(Path(name).name != name for name in names):
        raise LaminaError(
            f"{index} lists weights files outside its folder, which are not read; fetch it again"
        )
    tensors: Tensors = {}
    for name in names:
        part = index.parent / name
        tensors |= _read_safetensors(part) if part.suffix == ".safetensors" else _tensors(read_pickle(part))
    return tensors


def _read_safetensors(path: Path) -> Tensors:
    """Files that lamina wrote are verified: exports by their own digest, checkpoints by their manifest."""
    if reason := checkpoint.verify_weights(path):
        raise LaminaError(f"the checkpoint {path.parent} is damaged ({reason}); use an earlier one")
    try:
        return load_tensors(path, links=True, mend=AGAIN)[0]
    except FileNotFoundError:
        raise LaminaError(f"there is no weights file {path}") from None
