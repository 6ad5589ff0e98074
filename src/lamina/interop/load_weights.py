"""Weights from files of other tools into a timm network: no code of theirs runs, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models.beit import Beit
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, own_epsilon
from lamina.encoder.networks import Network, epsilon_of
from lamina.encoder.options import ChannelRule
from lamina.encoder.residual_decay import Factors, folded
from lamina.interop.channels import fit_channels
from lamina.interop.foreign import Foreign, read_foreign

Grid = tuple[int, int]
"""Rows and columns of patches."""

_TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{_TABLE}"
_CLASS_OFFSETS = 3
"""Rows of a table for pairs with the class token: to it, from it, and of it with itself."""


@dataclass(frozen=True)
class Loaded:
    """What became of a weights file: tensors taken, those left (heads, decoders), whether positions were
    resampled to another grid, what the file is, the channel statistics on [0, 1] that its network was trained
    with, where the file says so or its format has no other, and what else there is to know, in words."""

    taken: int
    ignored: tuple[str, ...]
    resampled: bool
    title: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        left = sorted({name.removeprefix("encoder.").split(".")[0] for name in self.ignored})
        parts = [f"{self.taken} tensors loaded"]
        parts += [f"left out: {', '.join(left)}"] if left else []
        return "; ".join([*parts, *self.notes])

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
    out and named in the result. Positions of another grid are resampled as timm does: from the grid that the
    file states (in its run, its export, or the configuration beside it); of a file that states none, from a
    square one, or from the network's own where the number of patches is no square. Residual decay is folded
    into the weights, so that the plain network computes the same.

    Raises:
        LaminaError: listing what is missing, unexpected, or of another shape, and where the file states
            another number of heads or another activation. `vit` is then as it was.
    """
    path = Path(path)
    return put_weights(vit, read_foreign(path), path.name)


def put_weights(
    vit: Network,
    foreign: Foreign,
    name: str,
    factors: Factors | None = None,
    channels: ChannelRule | None = None,
) -> Loaded:
    """As `load_weights_into`, of a file that was read; `name` is for messages, `channels` the rule by which
    the patch embedding of weights for other channels is taken (`fit_channels`).

    `factors` are those of the shortcuts of the encoder that `vit` is in. It then computes what the network of
    a checkpoint or an export of lamina computes, up to the epsilon of the norms; other weights are taken as
    they are.
    """
    notes = check_alike(vit, foreign, name)
    eps, own = trained_epsilon(foreign), epsilon_of(vit)
    if eps not in (None, own):
        notes.append(f"its layer norms were trained with an epsilon of {eps:g}, here it is {own:g}")
    loaded = put_encoder(vit, foreign, name, channels=channels)
    if foreign.factors is not None or foreign.folded is not None:
        vit.load_state_dict(refolded(vit, vit.state_dict(), foreign.factors, factors))
        if foreign.factors != factors:
            notes.append("residual decay converted, so that the encoder computes the same")
    options = foreign.options
    mean, std = (None, None) if options is None else (options.mean, options.std)
    assert not isinstance(mean, str)  # stated as numbers
    assert not isinstance(std, str)
    return replace(loaded, title=foreign.title, mean=mean, std=std, notes=(*loaded.notes, *notes))


def trained_epsilon(foreign: Foreign) -> float | None:
    """The epsilon of the layer norms with which weights were trained; None where it is not known."""
    options = foreign.options
    if foreign.eps is not None or options is None or (options.heads is None and options.width is not None):
        return foreign.eps
    return own_epsilon(options)


def put_encoder(
    vit: Network,
    foreign: Foreign,
    name: str,
    grid: Grid | None = None,
    channels: ChannelRule | None = None,
) -> Loaded:
    """The tensors of a file that was read, into a network; `grid` is that of its positions, where the file
    does not state it."""
    found = dict(foreign.encoder)
    changed = fit_channels(found, vit, channels, name)
    moved = fit_positions(found, vit, foreign.grid or grid)
    if problems := mismatches(vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    vit.load_state_dict(found, strict=True)
    notes = [str(note) for note in (moved, changed) if note is not None]
    return Loaded(len(found), foreign.beside("encoder"), moved is not None, notes=tuple(notes))


def refolded(
    vit: Network, state: dict[str, Tensor], was: Factors | None, now: Factors | None
) -> dict[str, Tensor]:
    """Weights trained with shortcuts scaled by `was` (None: plain), as weights with which shortcuts scaled by
    `now` compute the same."""
    if was == now:
        return state
    state = state if was is None else folded(vit, was, state)
    return state if now is None else folded(vit, now, state, back=True)


def check_alike(vit: Network, foreign: Foreign, name: str) -> list[str]:
    """Raise where the file states a network that computes otherwise although its tensors fit; returns what
    it does not state, where that is usually otherwise.

    Raises:
        LaminaError: for another number of heads, or another activation.
    """
    options = foreign.options
    if options is None or (options.heads is None and options.width is not None):
        return []
    with torch.device("meta"):
        stated = build_vit(options)
    theirs, ours = _unshaped(stated)[0], _unshaped(vit)[0]
    guessed = "heads" in foreign.guessed and theirs != ours
    if guessed:
        with torch.device("meta"):
            stated = build_vit(replace(options, heads=ours))
    check_unshaped(vit, stated, name)
    return [f"its heads are not stated: usual for its width are {theirs}, here are {ours}"] if guessed else []


def check_unshaped(vit: Network, trained: Network, name: str) -> None:
    """Raise where a network whose weights are to go into `vit` differs in what no tensor's shape tells.

    Raises:
        LaminaError: for another number of attention heads, or another activation.
    """
    (ours, our_act), (theirs, their_act) = _unshaped(vit), _unshaped(trained)
    if theirs != ours:
        raise LaminaError(
            f"{name} has {theirs} attention heads, this network has {ours}; set --encoder.heads {theirs}"
        )
    if their_act != our_act:
        raise LaminaError(
            f"{name} was trained with {their_act}, this network has {our_act}; take the --encoder that "
            "`lamina inspect` names"
        )


def _unshaped(vit: Network) -> tuple[int, str]:
    """What no tensor's shape tells: attention heads, and the activation of the MLPs."""
    block = vit.blocks[0]
    assert isinstance(block.attn, nn.Module)
    assert isinstance(block.mlp, nn.Module)
    return int(block.attn.num_heads), type(block.mlp.act).__name__  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class Resampled:
    """Positions that were resampled: rows and columns of patches before and now, and whether the former were
    stated rather than taken to be square."""

    before: Grid
    now: Grid
    stated: bool

    def __str__(self) -> str:
        (a, b), (c, d) = self.before, self.now
        assumed = "" if self.stated else ", which was taken to be square"
        return f"positions resampled to the new grid, from {a} x {b} patches{assumed}, to {c} x {d}"


def fit_positions(found: dict[str, Tensor], vit: Network, grid: Grid | None = None) -> Resampled | None:
    """Resample absolute and relative positions where the grid differs from the one in `found`: `grid` where
    it is known and fits; else a square one; else the network's own. What is invalid is left for the
    shape check."""
    now = (int(vit.patch_embed.grid_size[0]), int(vit.patch_embed.grid_size[1]))
    own, old = vit.pos_embed, found.get("pos_embed")
    before = None
    if own is not None and old is not None and old.ndim == 3 and old.shape[-1] == own.shape[-1]:
        prefix = own.shape[1] - now[0] * now[1]
        before = _grid_before(old.shape[1] - prefix, now, grid, lambda side: side)
        if before not in (None, now):
            found["pos_embed"] = resample_abs_pos_embed(
                old, new_size=list(now), old_size=list(before), num_prefix_tokens=prefix
            )
    if isinstance(vit, Beit):
        before = _fit_relative(found, vit, now, grid) or before
    return None if before is None or before == now else Resampled(before, now, before == grid)


def _grid_before(n: int, now: Grid, grid: Grid | None, span: Callable[[int], int]) -> Grid | None:
    """The grid of a table of `n` places; `span` is how many of them a side has. None where there is none."""
    if n < 1:
        return None
    side = round(n**0.5)
    square = next((s for s in range(1, side + 1) if span(s) == side), side)
    for rows, columns in (*([grid] if grid else []), (square, square), now):
        if span(rows) * span(columns) == n:
            return rows, columns
    return None


def _fit_relative(found: dict[str, Tensor], vit: Beit, now: Grid, grid: Grid | None) -> Grid | None:
    """A table for all blocks is given to each where the network has one for each, as in BEiT's and SimMIM's
    own fine-tuning, which leaves what is computed the same; tables of another grid are resampled by timm.
    Returns the grid that they were for."""
    own = vit.state_dict()
    tables = [name for name in own if name.endswith(_TABLE)]
    if _SHARED in found and _SHARED not in own:
        shared = found.pop(_SHARED)
        found |= {name: shared.clone() for name in tables}
    before = None
    for name in tables:
        old, new = found.get(name), own[name]
        if old is None or old.shape[1:] != new.shape[1:]:
            continue
        before = _grid_before(len(old) - _CLASS_OFFSETS, now, grid, _offsets)
        if before is None or before == now:
            continue
        table, extra = old[:-_CLASS_OFFSETS], old[-_CLASS_OFFSETS:]
        heads, (rows, columns) = table.shape[1], map(_offsets, before)
        shape = (heads, _offsets(now[0]), _offsets(now[1]))
        grown = resize_rel_pos_bias_table(
            table.T.reshape(heads, rows, columns), new_window_size=now, new_bias_shape=shape
        )
        found[name] = torch.cat([grown.flatten(1).T, extra])
    return before


def _offsets(side: int) -> int:
    """How far patches can be apart along a side, in both directions and none."""
    return 2 * side - 1


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
