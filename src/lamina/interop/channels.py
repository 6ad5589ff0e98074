"""A patch embedding for other channels than it was trained on, by a named rule."""

from __future__ import annotations

from lamina.core.errors import LaminaError
from lamina.encoder.networks import Network
from lamina.encoder.options import ChannelRule
from lamina.interop.foreign import Tensors

_KERNEL = "patch_embed.proj.weight"
_BIAS = "patch_embed.proj.bias"


def fit_channels(found: Tensors, vit: Network, rule: ChannelRule | None, name: str) -> str | None:
    """Change the patch embedding in `found` to the channels of `vit`; returns a sentence about it, None where
    the channels are the same and no rule is given. `name` is that of the weights.

    With kernels w_c of C channels, and C' channels here, "repeat" gives channel c the kernel
    w_(c mod C) C / C', "mean" gives each the sum of all w_c over C'; "new" leaves those of `vit`.

    Raises:
        LaminaError: for another number of channels without a rule, or "repeat" for fewer of them.
    """
    old, own = found.get(_KERNEL), vit.state_dict()
    if old is None or old.ndim != 4 or old.shape[1] == own[_KERNEL].shape[1]:
        return None if rule is None else f"channels are the same, so init_channels {rule} has no effect"
    before, now = old.shape[1], own[_KERNEL].shape[1]
    if rule is None:
        raise LaminaError(
            f"{name} is for {before} channel(s), this network for {now}; give --encoder.init-channels with "
            "the rule for its patch embedding: repeat, mean or new"
        )
    if rule == "repeat" and now < before:
        raise LaminaError(
            f"init_channels repeat is for more channels than the {before} of {name}, and this network has "
            f"{now}; use mean"
        )
    if rule == "repeat":
        found[_KERNEL] = old[:, [c % before for c in range(now)]] * (before / now)
    elif rule == "mean":
        found[_KERNEL] = (old.sum(dim=1, keepdim=True) / now).expand(-1, now, -1, -1).contiguous()
    else:
        found |= {part: own[part].clone() for part in (_KERNEL, _BIAS) if part in own}
    return f"patch embedding of {before} channel(s) for {now} by rule {rule!r}"
