"""A weights file of another tool under timm's and lamina's names: its parts, sizes, and what was assumed."""

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
    """What is known of a file beside its tensors: `config` and `processor` are JSON files of a transformers
    folder, `args` the options of a training script, `text` the configuration of an mmengine run, `lamina` the
    metadata of a file that lamina wrote. `key` is the key of the file under which the weights are, `beside`
    are the keys of other weights."""

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
        """Fields `mean` and `std` of `EncoderOptions`: those of the processor, else the given ones."""
        own = self.processor
        if isinstance(own.get("image_mean"), list) and isinstance(own.get("image_std"), list):
            mean, std = own["image_mean"], own["image_std"]
        return {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}


@dataclass(frozen=True)
class Foreign:
    """The content of a weights file whose format is known.

    `encoder` is under timm's names, `head`, `fusion` and `decoder` under lamina's (`decoder` may also hold
    `positions`, the table of a decoder whose positions are not a formula). `options` describe the network,
    heads None where their number is unknown; they are None for files under timm's names, which fit several
    networks. `guessed` are the fields of `options` that the file does not state and that were taken to be as
    usual for its sizes; `assumed` lists all such assumptions in words. `names` are the file's own names by
    the part that they became, "" for tensors that no part takes. `recipe_fields` are fields of a recipe, by
    group. `factors` are those of the shortcuts that the weights were trained with, where they decay with
    depth; `folded` is the residual decay that was folded into the weights of a plain network.
    """

    title: str
    encoder: Tensors
    names: Mapping[str, tuple[str, ...]]
    options: EncoderOptions | None = None
    head: Tensors = field(default_factory=dict)
    fusion: Tensors = field(default_factory=dict)
    decoder: Tensors = field(default_factory=dict)
    eps: float | None = None
    recipe_fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
        """The file's own names of the tensors that belong to none of `parts`."""
        return tuple(name for part, names in self.names.items() if part not in parts for name in names)


@dataclass
class Parts:
    """The tensors of a file by the part that they belong to, under new names, and what the file does not
    state; made by `divide`. For fields of the same name see `Foreign`."""

    encoder: Tensors
    fusion: Tensors
    decoder: Tensors
    head: Tensors
    names: Mapping[str, tuple[str, ...]]
    guessed: set[str] = field(default_factory=set)
    assumed: list[str] = field(default_factory=list)

    def foreign(self, title: str, options: EncoderOptions, eps: float | None, **more: Any) -> Foreign:
        """All of it as a `Foreign`; `more` are its further fields."""
        known = {**vars(self), "assumed": tuple(self.assumed), "guessed": frozenset(self.guessed)}
        return Foreign(title=title, options=options, eps=eps, **known, **more)

    def n_patches(self) -> int:
        """Number of patches, by the table of positions, whose first row is the class token's."""
        return need(self.encoder, "pos_embed").shape[1] - 1

    def sizes(self, tokens: int | None, size: Any = None) -> dict[str, Any]:
        """Fields `width`, `depth`, `in_chans`, `patch_size` and `image_size` of `EncoderOptions` from shapes.

        `tokens` is the number of patches, None where no tensor has it in its shape; `size` is the image size
        of a configuration. Without the latter a grid is taken to be square, which is noted as a guess; where
        that is impossible, `image_size` is None.
        """
        kernel = need(self.encoder, "patch_embed.proj.weight")
        if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
            sides = "x".join(map(str, kernel.shape[2:]))
            raise LaminaError(f"its patches are {sides} px; only square patches are supported")
        width, channels, patch = kernel.shape[:3]
        image = _stated_image(tokens, patch, size)
        if image is None and tokens is not None and (side := round(tokens**0.5)) ** 2 == tokens:
            image = (side * patch, side * patch)
            self.guessed.add("image_size")
        found = {"width": width, "depth": depth_of(self.encoder), "in_chans": channels}
        return {**found, "patch_size": patch, "image_size": image}

    def plain_vit(self, width: int, heads: Any) -> dict[str, Any]:
        """Fields `name` and `heads` of a plain ViT of that width; where `heads` is None, the usual number is
        taken and noted as a guess."""
        name, usual = _PLAIN.get(width, ("vit_base_patch16_224", None))
        if heads is None and usual is not None:
            heads = usual
            self.guessed.add("heads")
            self.assumed.append(f"{usual} heads, usual for width {width}")
        return {"name": name, "heads": None if heads is None else int(heads)}


@dataclass(frozen=True)
class Format:
    """A format of weights files: names that are always in them, and the function that reads them."""

    title: str
    signs: tuple[str, ...]
    """Patterns; for each of them, some name in the file ends with it. The first matches one tensor of a
    network."""
    convert: Callable[[Tensors, Clues], Foreign]
    inside: str = ""
    """A pattern of the prefixes that the format itself puts before the names of the network."""

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with these names has this format."""
        return all(any(re.search(f"(?:^|\\.){sign}$", name) for name in names) for sign in self.signs)

    def prefixes(self, names: Sequence[str]) -> list[str]:
        """The prefix of the names of each network of this format in a file ("model.", "teacher.", or "");
        prefixes of the format itself (`inside`) are no part of it."""
        anchor = re.compile(rf"(|.*?\.){self.inside}{self.signs[0]}")
        found = (anchor.fullmatch(name) for name in names)
        return list(dict.fromkeys(match[1] for match in found if match is not None))


def divide(tensors: Tensors, rules: Rules) -> Parts:
    """Tensors by part under new names.

    A rule is a pattern for the whole name and its replacement, which begins with the part; names that no rule
    matches go to "". Queries, keys and values under `q`, `k`, `v` are joined to `qkv`; a missing bias of one
    of the three (a key's has no effect on attention) is zero where another has one.
    """
    patterns = [(re.compile(old), new) for old, new in rules]
    parts: dict[str, Tensors] = {part: {} for part in ("encoder", "fusion", "decoder", "head")}
    names: dict[str, list[str]] = {part: [] for part in (*parts, "")}
    for name, tensor in tensors.items():
        plain = _WRAPPED.sub("", name)
        new = next((m.expand(to) for old, to in patterns if (m := old.fullmatch(plain))), "")
        part, _, rest = new.partition(".")
        names[part].append(name)
        if part:
            parts[part][rest] = tensor
    encoder, fusion, decoder, head = (_joined(own) for own in parts.values())
    return Parts(encoder, fusion, decoder, head, {part: tuple(own) for part, own in names.items()})


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
            raise LaminaError(
                f"{name}: query, key and value differ in shape, or one is missing: it is incomplete"
            )
        found[f"{stem}qkv.{kind}"] = torch.cat([torch.zeros_like(tensor) if t is None else t for t in three])
    return found


def transformer_rules(place: str, part: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Rules for the blocks `place.N` to `part.blocks.N`; `names` are patterns of modules to timm's names.

    Other tensors of a block keep their names and are refused later as unexpected: they would change what is
    computed.
    """
    rules = [
        (rf"{place}\.(\d+)\.{old}\.(weight|bias)", rf"{part}.blocks.\1.{new}.\2")
        for old, new in names.items()
    ]
    return [*rules, (rf"{place}\.(\d+)\.(.*)", rf"{part}.blocks.\1.\2")]


def need(tensors: Tensors, name: str) -> Tensor:
    """The tensor of that name; raises where it is not there."""
    if name not in tensors:
        raise LaminaError(f"it has no tensor {name}; the file is incomplete, or is not a whole ViT")
    return tensors[name]


def depth_of(tensors: Tensors) -> int:
    """Number of blocks."""
    numbers = [int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))]
    if not numbers:
        raise LaminaError("it has no transformer blocks; the file is incomplete, or is not a whole ViT")
    return max(numbers) + 1


def grid_of(image_size: Sequence[int], kernel: Tensor) -> tuple[int, int]:
    """Rows and columns of the patches of images of that size, by the kernel of the patch embedding."""
    return int(image_size[0]) // kernel.shape[-2], int(image_size[-1]) // kernel.shape[-1]


def _stated_image(tokens: int | None, patch: int, size: Any) -> tuple[int, int] | None:
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and side >= patch for side in sides):
        return None
    height, width = sides
    return (height, width) if tokens in (None, (height // patch) * (width // patch)) else None
