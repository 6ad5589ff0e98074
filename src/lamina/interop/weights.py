"""Weights from files of other tools into a timm network: no code of theirs runs, and nothing is guessed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from lamina.encoder import Network
from lamina.errors import LaminaError

PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
_ANCHOR = "patch_embed.proj.weight"
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_NOT_ENCODER = ("decoder", "mask_token", "head", "fc_norm", "classifier", "fusion")


@dataclass(frozen=True)
class Loaded:
    """What became of a weights file: tensors taken, those left (heads, decoders), and whether positions were
    resampled to another grid."""

    taken: int
    ignored: tuple[str, ...]
    resampled: bool

    def __str__(self) -> str:
        left = sorted({name.split(".")[0] for name in self.ignored})
        parts = [f"{self.taken} tensors loaded"]
        parts += [f"left out: {', '.join(left)}"] if left else []
        parts += ["positions resampled to the new grid"] if self.resampled else []
        return "; ".join(parts)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU, as they are called there.

    `.safetensors` is read as such; .pth, .pt, .bin, .tar and .ckpt through torch's restricted unpickler,
    which runs no code of the file (`argparse.Namespace`, found in MAE's own checkpoints, is let in as data).
    Dictionaries that keep the weights under "model" or "state_dict" are opened.

    Raises:
        LaminaError: for a file that is not there, is damaged, or wants more than tensors unpickled.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise LaminaError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in PICKLES:
        raise LaminaError(f"{path.name} is no weights file; give .safetensors, or {', '.join(PICKLES)}")
    content = _read_pickle(path)
    for _ in _WRAPPERS:  # no deeper: a pickled dictionary may hold itself
        content = next((content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)), content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise LaminaError(f"{path.name} holds no tensors under {', '.join(_WRAPPERS)} or at the top")
    return tensors


def load_weights_into(vit: Network, path: str | Path) -> Loaded:
    """Fill `vit` from a file: every tensor of the network must be there and fit.

    A common prefix ("module.", "encoder.vit.", ...) is taken off; heads, decoders and mask tokens are left
    out and named in the result; absolute positions of another grid are resampled (bicubic, as timm does;
    the old grid is taken to be square, unless it has as many patches as the new one).

    Raises:
        LaminaError: listing what is missing, unexpected, or of another shape. `vit` is then as it was.
    """
    found, ignored = encoder_part(read_weights(path), path)
    own = vit.state_dict()
    left = [name for name in found if name not in own and name.startswith(_NOT_ENCODER)]
    found = {name: tensor for name, tensor in found.items() if name not in left}
    resampled = _fit_positions(found, vit)
    problems = [f"missing: {_some(own.keys() - found.keys())}"] if own.keys() - found.keys() else []
    problems += [f"unexpected: {_some(found.keys() - own.keys())}"] if found.keys() - own.keys() else []
    problems += [
        f"{name} is {_shape(found[name])} in the file, {_shape(own[name])} here"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ][:3]
    if problems:
        raise LaminaError(f"{Path(path).name} does not fit this network: {'; '.join(problems)}")
    vit.load_state_dict(found, strict=True)
    return Loaded(len(found), (*ignored, *left), resampled)


def encoder_part(tensors: dict[str, Tensor], path: str | Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the ViT under timm's names, and the names of the others."""
    prefixes = [name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR)]
    if not prefixes:
        raise LaminaError(f"{Path(path).name} has no {_ANCHOR}; it is no ViT under timm's names")
    if len(prefixes) > 1:
        raise LaminaError(f"{Path(path).name} holds several ViTs ({', '.join(prefixes)}); keep one of them")
    inside = {n.removeprefix(prefixes[0]): t for n, t in tensors.items() if n.startswith(prefixes[0])}
    return inside, tuple(name for name in tensors if not name.startswith(prefixes[0]))


def _fit_positions(found: dict[str, Tensor], vit: Network) -> bool:
    """Resample `pos_embed` where the grid differs; what cannot be meant is left for the shape check."""
    own, old = vit.pos_embed, found.get("pos_embed")
    if own is None or old is None or old.shape == own.shape or old.ndim != 3:
        return False
    rows, columns = vit.patch_embed.grid_size
    prefix = own.shape[1] - rows * columns
    side = round(max(0, old.shape[1] - prefix) ** 0.5)
    if old.shape[-1] != own.shape[-1] or side * side != old.shape[1] - prefix:
        return False
    found["pos_embed"] = resample_abs_pos_embed(
        old, new_size=[rows, columns], old_size=[side, side], num_prefix_tokens=prefix
    )
    return True


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise LaminaError(f"{path.name} is damaged or no safetensors file: {error}") from None


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
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


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
