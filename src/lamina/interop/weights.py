"""Weights from files of other tools into a timm network: no code of theirs runs, and nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.beit import Beit, checkpoint_filter_fn
from torch import Tensor, nn

from lamina.encoder import Network
from lamina.errors import LaminaError
from lamina.interop.foreign import PICKLES, Foreign, read_foreign, read_weights, weights_in
from lamina.runs import Run

_NOT_ENCODER = ("decoder", "mask_token", "head", "fc_norm", "classifier", "fusion")
_SHARED = "rel_pos_bias.relative_position_bias_table"

__all__ = [
    "PICKLES",
    "Loaded",
    "fill",
    "fit_positions",
    "load_weights_into",
    "mismatches",
    "put_encoder",
    "read_weights",
]


@dataclass(frozen=True)
class Loaded:
    """What became of a weights file: tensors taken, those left (heads, decoders), whether positions were
    resampled to another grid, what the file is, and the channel statistics on [0, 1] that its network was
    trained with, where the file says so or its format has no other."""

    taken: int
    ignored: tuple[str, ...]
    resampled: bool
    title: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __str__(self) -> str:
        left = sorted({name.split(".")[0] for name in self.ignored})
        parts = [f"{self.taken} tensors loaded"]
        parts += [f"left out: {', '.join(left)}"] if left else []
        parts += ["positions resampled to the new grid"] if self.resampled else []
        return "; ".join(parts)

    def other_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> str | None:
        """A line of warning where the weights were trained on images normalised otherwise than by these."""
        if self.mean is None or self.std is None:
            return None
        pairs = [*zip(self.mean, mean, strict=False), *zip(self.std, std, strict=False)]
        if all(abs(a - b) < 1e-3 for a, b in pairs):
            return None
        own, other = (
            f"mean {_numbers(m)} and std {_numbers(s)}" for m, s in ((self.mean, self.std), (mean, std))
        )
        return (
            f"the weights were trained on images normalised by {own}, this encoder normalises by {other}; "
            "set --encoder.mean and --encoder.std to the former to start from what the weights know"
        )


def load_weights_into(vit: Network, path: str | Path) -> Loaded:
    """Fill `vit` from a file or folder of any format in `lamina.interop.foreign`: every tensor of the network
    must be there and fit.

    A common prefix ("module.", "encoder.vit.", ...) is taken off; heads, decoders and mask tokens are left
    out and named in the result; positions of another grid are resampled (as timm does; the old grid is
    taken to be square, unless it has as many patches as the new one).

    Raises:
        LaminaError: listing what is missing, unexpected, or of another shape. `vit` is then as it was.
    """
    path = Path(path)
    foreign = read_foreign(path)
    loaded = put_encoder(vit, foreign, path.name)
    if foreign.options is not None:
        mean, std = foreign.options.mean, foreign.options.std
        assert not isinstance(mean, str)
        assert not isinstance(std, str)
    else:
        mean, std = _stated(path)
    return Loaded(loaded.taken, loaded.ignored, loaded.resampled, foreign.title, mean, std)


def put_encoder(vit: Network, foreign: Foreign, name: str) -> Loaded:
    """As `load_weights_into`, of a file that was read; `name` is for messages."""
    own = vit.state_dict()
    found = dict(foreign.encoder)
    left = [name for name in found if name not in own and name.startswith(_NOT_ENCODER)]
    found = {name: tensor for name, tensor in found.items() if name not in left}
    resampled = fit_positions(found, vit)
    if problems := mismatches(own, found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    vit.load_state_dict(found, strict=True)
    return Loaded(len(found), (*foreign.beside("encoder"), *left), resampled)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put tensors into a module; raises as `load_weights_into` does where they are not just what it has."""
    if problems := mismatches(module.state_dict(), tensors):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    module.load_state_dict(dict(tensors), strict=True)


def mismatches(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What is missing in `found`, unexpected, or of another shape, in a few words; empty where all fits."""
    problems = [f"missing: {_some(own.keys() - found.keys())}"] if own.keys() - found.keys() else []
    problems += [f"unexpected: {_some(found.keys() - own.keys())}"] if found.keys() - own.keys() else []
    problems += [
        f"{name} is {_shape(found[name])} in the file, {_shape(own[name])} here"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ][:3]
    return "; ".join(problems)


def fit_positions(found: dict[str, Tensor], vit: Network, grid: tuple[int, int] | None = None) -> bool:
    """Resample positions where the grid differs from the one in `found`, taken to be square unless it is
    given; what cannot be meant is left for the shape check."""
    if isinstance(vit, Beit):
        return _fit_relative(found, vit)
    own, old = vit.pos_embed, found.get("pos_embed")
    rows, columns = vit.patch_embed.grid_size
    if own is None or old is None or old.ndim != 3 or (rows, columns) == grid:
        return False
    if grid is None and old.shape == own.shape:
        return False
    prefix = own.shape[1] - rows * columns
    side = round(max(0, old.shape[1] - prefix) ** 0.5)
    before = grid or (side, side)
    if old.shape[-1] != own.shape[-1] or before[0] * before[1] != old.shape[1] - prefix:
        return False
    found["pos_embed"] = resample_abs_pos_embed(
        old, new_size=[rows, columns], old_size=list(before), num_prefix_tokens=prefix
    )
    return True


def _fit_relative(found: dict[str, Tensor], vit: Beit) -> bool:
    """A table for all blocks is given to each where the network has one for each, as in BEiT's and SimMIM's
    own fine-tuning, which leaves what is computed the same; tables of another grid are resampled by timm."""
    own = vit.state_dict()
    if _SHARED in found and _SHARED not in own:
        shared = found.pop(_SHARED)
        tables = [name for name in own if name.endswith("attn.relative_position_bias_table")]
        found |= {name: shared.clone() for name in tables}
    tables = [name for name in found if name.endswith("relative_position_bias_table")]
    odd = [n for n in tables if n not in own or found[n].shape[1:] != own[n].shape[1:]]
    kernel = "patch_embed.proj.weight"
    if odd or found[kernel].shape != own[kernel].shape:
        return False
    before = {name: tuple(tensor.shape) for name, tensor in found.items()}
    fitted = checkpoint_filter_fn(dict(found), vit)
    found.clear()
    found |= fitted
    return any(before.get(name) != tuple(tensor.shape) for name, tensor in found.items())


def _stated(path: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std that an export, timm's config beside a file, or the run of a checkpoint states; None where
    nothing does."""
    file = weights_in(path)
    run = Run(file.parents[2]) if file is not None and len(file.parents) > 2 else None
    if file is not None and run is not None and file.parents[1].name == "checkpoints" and run.exists():
        options = run.recipe().encoder
        assert not isinstance(options.mean, str)  # a run's recipe is resolved
        assert not isinstance(options.std, str)
        return options.mean, options.std
    beside = None if file is None else file.parent / "config.json"
    if file is not None and file.name != "model.safetensors":
        beside = file.with_suffix(".json")
    text = None
    try:
        if file is not None and file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                text = (opened.metadata() or {}).get("lamina")
        if text is None and beside is not None and beside.is_file():
            text = beside.read_text(encoding="utf-8")
        about: Any = json.loads(text) if text is not None else {}
    except (SafetensorError, OSError, ValueError):
        return None, None
    config = about.get("pretrained_cfg") if isinstance(about, dict) else None
    values = [config.get(key) if isinstance(config, dict) else None for key in ("mean", "std")]
    if not all(isinstance(v, list) and all(isinstance(x, int | float) for x in v) for v in values):
        return None, None
    mean, std = (tuple(map(float, v)) for v in values if v is not None)
    return mean, std


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
