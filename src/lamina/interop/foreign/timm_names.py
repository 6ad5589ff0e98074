"""Files under timm's own names: of timm, of lamina's checkpoints and exports, of whoever builds on timm."""

from __future__ import annotations

from typing import Any

import timm

from lamina.encoder import EncoderOptions
from lamina.errors import LaminaError
from lamina.interop.foreign.described import Clues, Foreign, Format, Tensors

_ANCHOR = "patch_embed.proj.weight"
OWN_ANCHOR = f"encoder.vit.{_ANCHOR}"
_ARGUMENTS = {"patch_size": "patch_size", "embed_dim": "width", "depth": "depth", "num_heads": "heads"}


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """The tensors below the one prefix that a ViT has. Names do not tell which network they are for; timm's
    `config.json`, in a folder, does."""
    prefixes = [name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR)]
    if len(prefixes) > 1:
        raise LaminaError(f"it holds several ViTs ({', '.join(prefixes)}); keep one of them")
    (prefix,) = prefixes
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    names = {"encoder": tuple(inside), "": tuple(name for name in tensors if name not in inside)}
    encoder = {name.removeprefix(prefix): tensor for name, tensor in inside.items()}
    title = (
        "a checkpoint of lamina" if (prefix + _ANCHOR).endswith(OWN_ANCHOR) else "a ViT under timm's names"
    )
    options = _options(clues.config)
    if options is not None:
        title = f"timm's {options.name}"
    return Foreign(title, encoder, names, options)


def _options(config: Any) -> EncoderOptions | None:
    """What timm's config.json says of the network; None for another tool's."""
    name, feed = config.get("architecture"), config.get("pretrained_cfg")
    if not isinstance(name, str) or not isinstance(feed, dict) or not timm.is_model(name):
        return None
    own = config.get("model_args") or {}
    size = own.get("img_size") or feed.get("input_size", [3, None])[1:]
    size = (size, size) if isinstance(size, int) else tuple(size)
    statistics = {k: tuple(map(float, feed[k])) for k in ("mean", "std") if isinstance(feed.get(k), list)}
    return EncoderOptions(
        name=name,
        image_size=None if None in size else size,
        in_chans=int(own.get("in_chans") or feed.get("input_size", [3])[0]),
        start="timm",
        **{ours: own[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in own},
        **statistics,  # type: ignore[arg-type]
    )


FORMAT = Format("a ViT under timm's names", (r"patch_embed\.proj\.weight",), convert)
