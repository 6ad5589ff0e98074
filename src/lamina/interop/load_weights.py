"""Loads weights files of any known format into a timm network; no code of the file is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.text import some_of
from lamina.encoder.build import build_vit, own_epsilon
from lamina.encoder.networks import Network, epsilon_of
from lamina.encoder.options import ChannelRule
from lamina.encoder.residual_decay import Factors, folded
from lamina.interop.channels import fit_channels
from lamina.interop.foreign import Foreign, read_foreign
from lamina.interop.positions import Grid, fit_positions


@dataclass(frozen=True)
class Loaded:
    """The result of loading a weights file.

    Attributes:
        taken: number of tensors that were loaded.
        ignored: names of the tensors that were not (heads, decoders).
        resampled: whether positions were resampled to another grid.
        title: the format of the file.
        mean, std: channel statistics on [0, 1] that its network was trained with, where they are known.
        notes: sentences for the user.
    """

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
        """A warning where the weights were trained with other channel statistics than these; else None."""
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
            "set --encoder.mean and --encoder.std to the former, so that the weights fit the images"
        )


def load_weights_into(vit: Network, path: str | Path) -> Loaded:
    """Fill `vit` from a file or folder of any format in `lamina.interop.foreign`: every tensor of the network
    must be there and fit.

    A common prefix ("module.", "encoder.vit.", ...) is taken off; heads, decoders and mask tokens are left
    out and named in the result. Positions of another grid are resampled as timm does: from the grid that the
    file states (in its run, its export, or the configuration beside it); without one, from a square grid, or
    from the network's own where the number of patches is not a square. Residual decay is folded into the
    weights, so that the plain network computes the same.

    Raises:
        LaminaError: for tensors that are missing, unexpected or of another shape, and where the file states
            another number of heads or another activation. `vit` is then unchanged.
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
    the patch embedding of weights for other channels is changed (`fit_channels`).

    `factors` are those of the shortcuts of the encoder that `vit` is in. With weights of lamina the encoder
    then computes what their network computes, up to the epsilon of the norms; other weights are used as they
    are.
    """
    notes = check_same_network(vit, foreign, name)
    eps, own = trained_epsilon(foreign), epsilon_of(vit)
    if eps not in (None, own):
        notes.append(f"its layer norms were trained with an epsilon of {eps:g}, and this network has {own:g}")
    loaded = put_encoder(vit, foreign, name, channels=channels)
    if foreign.factors is not None or foreign.folded is not None:
        vit.load_state_dict(convert_decay(vit, vit.state_dict(), foreign.factors, factors))
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
    """Load the tensors of a file that was read into a network; `grid` is that of its positions, where the
    file does not state it."""
    found = dict(foreign.encoder)
    changed = fit_channels(found, vit, channels, name)
    moved = fit_positions(found, vit, foreign.grid or grid)
    if problems := mismatches(vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    vit.load_state_dict(found, strict=True)
    notes = [str(note) for note in (moved, changed) if note is not None]
    return Loaded(len(found), foreign.beside("encoder"), moved is not None, notes=tuple(notes))


def convert_decay(
    vit: Network, state: dict[str, Tensor], was: Factors | None, now: Factors | None
) -> dict[str, Tensor]:
    """Weights trained with shortcuts scaled by `was` (None: plain), converted to weights with which shortcuts
    scaled by `now` compute the same."""
    if was == now:
        return state
    state = state if was is None else folded(vit, was, state)
    return state if now is None else folded(vit, now, state, back=True)


def check_same_network(vit: Network, foreign: Foreign, name: str) -> list[str]:
    """Raise where the file states a network that computes something else although its tensors fit; returns
    notes on options that the file does not state and that differ from the usual ones.

    Raises:
        LaminaError: for another number of heads, or another activation.
    """
    options = foreign.options
    if options is None or (options.heads is None and options.width is not None):
        return []
    with torch.device("meta"):
        stated = build_vit(options)
    theirs, ours = _heads_and_activation(stated)[0], _heads_and_activation(vit)[0]
    guessed = "heads" in foreign.guessed and theirs != ours
    if guessed:
        with torch.device("meta"):
            stated = build_vit(replace(options, heads=ours))
    check_heads_and_activation(vit, stated, name)
    note = f"it does not state its heads: {theirs} are usual for its width, and this network has {ours}"
    return [note] if guessed else []


def check_heads_and_activation(vit: Network, trained: Network, name: str) -> None:
    """Raise where the network whose weights are to be loaded into `vit` differs in what no shape of a tensor
    shows.

    Raises:
        LaminaError: for another number of attention heads, or another activation.
    """
    (ours, our_act), (theirs, their_act) = _heads_and_activation(vit), _heads_and_activation(trained)
    if theirs != ours:
        raise LaminaError(
            f"{name} has {theirs} attention heads, this network has {ours}; set --encoder.heads {theirs}"
        )
    if their_act != our_act:
        raise LaminaError(
            f"{name} was trained with the activation {their_act}, this network has {our_act}; use the "
            "--encoder that `lamina inspect` names"
        )


def other_heads(name: str, own: int, given: int | None) -> LaminaError:
    """The error for a number of attention heads that is not the one that a network states."""
    return LaminaError(f"{name} has {own} attention heads, not {given}; leave the number out")


def _heads_and_activation(vit: Network) -> tuple[int, str]:
    """The number of attention heads, and the activation of the MLPs."""
    block = vit.blocks[0]
    assert isinstance(block.attn, nn.Module)
    assert isinstance(block.mlp, nn.Module)
    return int(block.attn.num_heads), type(block.mlp.act).__name__  # type: ignore[arg-type]


def fill(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load tensors into a module; raises as `load_weights_into` where names or shapes differ."""
    if problems := mismatches(module.state_dict(), tensors):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    module.load_state_dict(dict(tensors), strict=True)


def mismatches(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The tensors that are missing in `found`, unexpected, or of another shape, in a few words; empty where
    all fit."""
    missing, unexpected = own.keys() - found.keys(), found.keys() - own.keys()
    problems = [f"missing: {some_of(sorted(missing), 5)}"] if missing else []
    problems += [f"unexpected: {some_of(sorted(unexpected), 5)}"] if unexpected else []
    problems += [
        f"{name} is {_shape(found[name])} in the file, {_shape(own[name])} in this network"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ][:3]
    return "; ".join(problems)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
