"""What a foreign weights file holds, in lamina's words: timm's names, sizes, and what had to be assumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.encoder.options import IMAGENET_MEAN, IMAGENET_STD, EncoderOptions
from lamina.encoder.residual_decay import Factors
from lamina.interop.metadata import Metadata

Tensors = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]

_PLAIN = {
    192: ("vit_tiny_patch16_224", 3),
    384: ("vit_small_patch16_224", 6),
    768: ("vit_base_patch16_224", 12),
    1024: ("vit_large_patch16_224", 16),
    1280: ("vit_huge_patch14_224", 16),
}
USUAL_HEADS = {width: heads for width, (_, heads) in _PLAIN.items()}
"""Attention heads by width, of plain ViTs."""
_WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile


@dataclass(frozen=True)
class Clues:
    """What a file says beside its tensors: `config` and `processor` are JSON files of a transformers folder,
    `args` the options of a training script, `text` the configuration of an mmengine run, `lamina` what lamina
    says of a file of its own. `key` is where in the file the weights stand, `beside` where others do."""

    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    lamina: Metadata | None = None
    key: str = ""
    beside: tuple[str, ...] = ()

    def statistics(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> dict[str, Any]:
        """Fields `mean` and `std` of `EncoderOptions`: as said, else what such networks are fed with."""
        own = self.processor
        if isinstance(own.get("image_mean"), list) and isinstance(own.get("image_std"), list):
            mean, std = own["image_mean"], own["image_std"]
        return {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}


@dataclass(frozen=True)
class Foreign:
    """A weights file, understood.

    `encoder` is under timm's names, `head`, `fusion` and `decoder` under lamina's (`decoder` may also hold
    `positions`, the table of a decoder whose positions are not a formula). `options` describe the network,
    heads None where nothing says how many; they are None for files under timm's names, which fit several
    networks. `guessed` are the fields of them that the file does not say, but that are usual for its sizes.
    `names` are the file's own names by the part that they became, "" for what no part takes. `said` are
    fields of a recipe, by group; `assumed` is what the file does not say, in words. `factors` are those of
    the shortcuts that the weights were trained with, where they fade with depth; `folded` is the residual
    decay that was folded into the weights of a plain network.
    """

    title: str
    encoder: Tensors
    names: Mapping[str, tuple[str, ...]]
    options: EncoderOptions | None = None
    head: Tensors = field(default_factory=dict)
    fusion: Tensors = field(default_factory=dict)
    decoder: Tensors = field(default_factory=dict)
    eps: float | None = None
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    guessed: frozenset[str] = frozenset()
    factors: Factors | None = None
    folded: float | None = None

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches that its positions are for, where the file says so."""
        if self.options is None or self.options.image_size is None or "image_size" in self.guessed:
            return None
        return grid_of(self.options.image_size, need(self.encoder, "patch_embed.proj.weight"))

    def beside(self, *parts: str) -> tuple[str, ...]:
        """The file's names that none of `parts` takes."""
        return tuple(name for part, names in self.names.items() if part not in parts for name in names)


@dataclass
class Guesses:
    """What a file does not say: fields of `EncoderOptions`, and all of it in words."""

    fields: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def said(self) -> dict[str, Any]:
        """The fields of a `Foreign`."""
        return {"assumed": tuple(self.words), "guessed": frozenset(self.fields)}


@dataclass(frozen=True)
class Format:
    """One way in which others write their weights: names that are always there, and how to read them."""

    title: str
    signs: tuple[str, ...]
    """Patterns, each of which some name of the file ends with; the first fits one tensor of a network."""
    convert: Callable[[Tensors, Clues], Foreign]
    inside: str = ""
    """A pattern of prefixes which the format itself gives to the network, beside its other parts."""

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with these names is written so."""
        return all(any(re.search(f"(?:^|\\.){sign}$", name) for name in names) for sign in self.signs)

    def prefixes(self, names: Sequence[str]) -> list[str]:
        """What stands before the names of each network of this format in a file ("model.", "teacher.", or
        nothing); a prefix that the format itself may have is no part of it."""
        anchor = re.compile(rf"(|.*?\.){self.inside}{self.signs[0]}")
        found = (anchor.fullmatch(name) for name in names)
        return list(dict.fromkeys(match[1] for match in found if match is not None))


def divide(tensors: Tensors, rules: Rules) -> tuple[dict[str, Tensors], dict[str, tuple[str, ...]]]:
    """Tensors by part under new names, and the old names by part.

    A rule is a pattern for the whole name and what becomes of it, the part first; names that no rule takes
    go to "". Queries, keys and values under `q`, `k`, `v` are joined to `qkv`; biases that are not there (a
    key's has no effect on attention) are zeros where another of the three has one.
    """
    patterns = [(re.compile(old), new) for old, new in rules]
    parts: dict[str, Tensors] = {part: {} for part in ("encoder", "fusion", "decoder", "head")}
    names: dict[str, list[str]] = {part: [] for part in ("encoder", "fusion", "decoder", "head", "")}
    for name, tensor in tensors.items():
        plain = _WRAPPED.sub("", name)
        new = next((m.expand(to) for old, to in patterns if (m := old.fullmatch(plain))), "")
        part, _, rest = new.partition(".")
        names[part].append(name)
        if part:
            parts[part][rest] = tensor
    return {k: _joined(v) for k, v in parts.items()}, {k: tuple(v) for k, v in names.items()}


def _joined(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*attn\.)([qkv])\.(weight|bias)", name)
        if match is None:
            found[name] = tensor
            continue
        stem, _, kind = match.groups()
        three = [tensors.get(f"{stem}{letter}.{kind}") for letter in "qkv"]
        shapes = {tuple(t.shape) for t in three if t is not None}
        if len(shapes) > 1 or (kind == "weight" and None in three):
            raise LaminaError(f"{name}: its query, key and value are not alike; the file is cut short")
        found[f"{stem}qkv.{kind}"] = torch.cat([torch.zeros_like(tensor) if t is None else t for t in three])
    return found


def transformer_rules(place: str, part: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Rules for the blocks `place.N` to `part.blocks.N`; `names` are patterns of modules to timm's names.

    What else is in a block keeps its name and is found to be unexpected: it would change what is computed.
    """
    rules = [
        (rf"{place}\.(\d+)\.{old}\.(weight|bias)", rf"{part}.blocks.\1.{new}.\2")
        for old, new in names.items()
    ]
    return [*rules, (rf"{place}\.(\d+)\.(.*)", rf"{part}.blocks.\1.\2")]


def need(tensors: Tensors, name: str) -> Tensor:
    """The tensor of that name; raises where it is not there."""
    if name not in tensors:
        raise LaminaError(f"it has no {name}; the file is cut short, or no whole ViT")
    return tensors[name]


def depth_of(tensors: Tensors) -> int:
    """Number of blocks."""
    numbers = [int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))]
    if not numbers:
        raise LaminaError("it has no blocks; the file is cut short, or no whole ViT")
    return max(numbers) + 1


def grid_of(image_size: Sequence[int], kernel: Tensor) -> tuple[int, int]:
    """Rows and columns of the patches of images of that size, by the kernel of the patch embedding."""
    return int(image_size[0]) // kernel.shape[-2], int(image_size[-1]) // kernel.shape[-1]


def sizes(encoder: Tensors, tokens: int | None, guesses: Guesses, size: Any = None) -> dict[str, Any]:
    """Fields `width`, `depth`, `in_chans`, `patch_size` and `image_size` of `EncoderOptions` from shapes.

    `tokens` is the number of patches, None where no tensor tells; `size` what a configuration says of the
    image. Grids are taken to be square unless it does, which is noted as a guess; where they cannot be,
    `image_size` is None.
    """
    kernel = need(encoder, "patch_embed.proj.weight")
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        raise LaminaError(f"its patches are {'x'.join(map(str, kernel.shape[2:]))} px; only squares are read")
    patch = int(kernel.shape[-1])
    image = _stated_image(tokens, patch, size)
    if image is None and tokens is not None and (side := round(tokens**0.5)) ** 2 == tokens:
        image = (side * patch, side * patch)
        guesses.fields.add("image_size")
    found = {"width": int(kernel.shape[0]), "depth": depth_of(encoder), "in_chans": int(kernel.shape[1])}
    return {**found, "patch_size": patch, "image_size": image}


def _stated_image(tokens: int | None, patch: int, size: Any) -> tuple[int, int] | None:
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and side >= patch for side in sides):
        return None
    height, width = sides
    return (height, width) if tokens in (None, (height // patch) * (width // patch)) else None


def plain_vit(width: int, heads: Any, guesses: Guesses) -> dict[str, Any]:
    """Fields `name` and `heads` of a plain ViT of that width; usual heads are noted as a guess."""
    name, usual = _PLAIN.get(width, ("vit_base_patch16_224", None))
    if heads is None and usual is not None:
        heads = usual
        guesses.fields.add("heads")
        guesses.words.append(f"{usual} heads, usual for width {width}")
    return {"name": name, "heads": None if heads is None else int(heads)}
