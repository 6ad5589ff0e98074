"""Pickled weights, read by torch's restricted unpickler; other objects are read as plain data or dropped."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lamina.core.errors import LaminaError
from lamina.core.plain_files import check_plain

PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt")


class _Inert:
    """Takes the place of other objects in a checkpoint: accepts any arguments, keeps and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Default:
    """Takes the place of `defaultdict`: a dictionary without the function that makes missing values."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # torch fills no other kind
        return OrderedDict()


# Their classes are neither needed nor called: the configuration of SimMIM, the logs of mmengine, Lightning's
# hyper-parameters, and the paths and times that trainers keep beside the weights.
_NUMPY = ("multiarray._reconstruct", "multiarray.scalar")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_STAND_INS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "yacs.config.CfgNode"),
    (_Default, "collections.defaultdict"),
    *(
        (OrderedDict, f"{place}.AttributeDict")
        for place in (
            "pytorch_lightning.utilities.parsing",
            "lightning.pytorch.utilities.parsing",
            "lightning_fabric.utilities.data",
            "lightning.fabric.utilities.data",
        )
    ),
    *(
        (_Inert, name)
        for name in (
            "mmengine.logging.history_buffer.HistoryBuffer",
            "builtins.getattr",
            *(f"builtins.{kind}" for kind in ("int", "float", "str", "bool", "list", "dict", "tuple")),
            *(f"pathlib.{name}" for name in _PATHS),
            *(f"pathlib._local.{name}" for name in _PATHS),  # Python 3.13
            *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
            "numpy.ndarray",
            "numpy.dtype",
            *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY),
        )
    ),
]


def read_pickle(path: Path) -> Mapping[Any, Any]:
    """What a file of torch holds, on the CPU; no code of it is run.

    Known classes of common trainers are read as data (namespaces, dictionaries), or replaced by something
    that does nothing (paths, times, logs).

    Raises:
        LaminaError: for a file that is damaged, is a program, or has objects of other classes, naming one.
    """
    check_plain(path, links=True, mend="fetch it again")
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file may fail in any way, and none of them is a bug of ours
        raise LaminaError(_reason(path, str(error) or type(error).__name__)) from None
    if not isinstance(content, Mapping):
        raise LaminaError(
            f"{path.name} contains a {type(content).__name__}, not a dictionary of tensors; save its "
            "state_dict()"
        )
    return content


def _reason(path: Path, message: str) -> str:
    """Why a file cannot be read, without torch's advice to read it unrestricted."""
    if _is_torchscript(path):
        return (
            f"{path.name} is a TorchScript program, which is code and is not read; save its weights where it "
            "was made: torch.save(module.state_dict(), 'weights.pth')"
        )
    named = re.search(r"GLOBAL (\S+)", message)
    if named is not None or "unsupported" in message.lower():
        what = f" ({named[1]})" if named is not None else ""
        return (
            f"{path.name} wants to run code when it is read{what}, so it was not read; save the tensors "
            "alone where it was made, as .safetensors"
        )
    reason = message.splitlines()[0]
    if reason.startswith("Weights only load failed"):  # torch goes on to advise against the restriction
        reason = "its pickled data are invalid"
    return f"{path.name} is damaged or no file of torch ({reason}); fetch it again"


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                re.search(r"(?:^|/)(?:code/.*\.py|constants\.pkl)$", name) for name in archive.namelist()
            )
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
