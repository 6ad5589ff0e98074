"""The result of `lamina inspect` as rows of a table and as text, and the commands that use the path."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.text import counted
from lamina.encoder.build import build_vit
from lamina.encoder.options import IMAGENET_MEAN, IMAGENET_STD, EncoderOptions
from lamina.fusion.options import resolve_layers
from lamina.interop.foreign import Foreign

SHOWN = 12
PARTS = {
    "encoder": "encoder",
    "fusion": "fusion",
    "decoder": "decoder",
    "head": "projection",
    "classifier": "classifier",
}


class Group(NamedTuple):
    """Tensors of a file with a common prefix: the part that uses them ("" for none), the prefix, how many."""

    part: str
    prefix: str
    tensors: int

    def __str__(self) -> str:
        return f"{self.prefix} ({self.tensors})"


@dataclass(frozen=True)
class Inspection:
    """What a path is.

    `architecture` is a timm name with sizes, empty where unknown; `parameters` counts all numbers in it;
    `facts` are further rows; `used` and `ignored` group the tensors by how their names begin; `commands`
    use it.
    """

    path: str
    what: str
    architecture: str = ""
    parameters: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    used: tuple[Group, ...] = ()
    ignored: tuple[Group, ...] = ()
    commands: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of a table; the name of a line that continues the last one is empty."""
        rows = [("path", self.path), ("what", self.what)]
        rows += [("architecture", self.architecture)] if self.architecture else []
        rows += [("parameters", f"{self.parameters:,}")] if self.parameters else []
        rows += self.facts
        for part in dict.fromkeys(group.part for group in self.used):
            rows += _listed(f"used: {PARTS.get(part, part)}", [g for g in self.used if g.part == part])
        rows += _listed("ignored", self.ignored)
        return rows + [("use" if i == 0 else "", line) for i, line in enumerate(self.commands)]

    def __str__(self) -> str:
        rows = self.rows()
        margin = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:<{margin}}{value}" for name, value in rows)


def grouped(names: Iterable[str], part: str = "") -> list[Group]:
    """Names grouped by prefix: up to the number of a block, else all but the last part."""
    counts: dict[str, int] = {}
    numbers: dict[str, set[int]] = {}
    for name in names:
        match = re.match(r"(.*?)\.(\d+)\.", name)
        begin = match[1] if match else name.rpartition(".")[0] or name
        counts[begin] = counts.get(begin, 0) + 1
        if match:
            numbers.setdefault(begin, set()).add(int(match[2]))
    ends = {begin: f".{min(n)}-{max(n)}" if len(n) > 1 else f".{min(n)}" for begin, n in numbers.items()}
    return [Group(part, begin + ends.get(begin, ""), count) for begin, count in counts.items()]


def describe_network(options: EncoderOptions) -> str:
    """A timm name, sizes and channels in a line."""
    size = options.image_size
    parts = [options.name]
    parts += [f"width {options.width}"] if options.width else []
    parts += [counted(options.depth, "block")] if options.depth else []
    parts += [counted(options.heads, "head") if options.heads else "heads unknown"] if options.width else []
    parts += [f"patch {options.patch_size} px"] if options.patch_size else []
    parts += [f"images {size[0]} x {size[-1]} px"] if size else []
    parts += [counted(options.in_chans, "channel")]
    return ", ".join(parts)


def embed_command(name: str, options: EncoderOptions | None, ask_heads: bool = False) -> str:
    """The command that writes features; N stands for heads that are to be given."""
    command = f"lamina embed {shlex.quote(name)} DATA --out features.npz"
    command += " --network TIMM-NAME" if options is None else ""
    return command + (" --encoder.heads N" if ask_heads else "")


def pretrain_command(
    name: str, options: EncoderOptions | None, ask_heads: bool = False, sizes: Mapping[str, int] | None = None
) -> str:
    """The command that pre-trains from these weights, with the options that differ from the named model's.

    Args:
        options: of the network; None where the file does not state it: TIMM-NAME stands for it.
        ask_heads: whether N stands for a number of heads that the user has to give.
        sizes: of an unknown network, those that differ from a usual one.
    """
    command = f"lamina pretrain DATA --out RUN --init {shlex.quote(name)}"
    heads = " --encoder.heads N" if ask_heads else ""
    if options is None:
        flags = [f"--encoder.{key.replace('_', '-')} {value}" for key, value in (sizes or {}).items()]
        if sizes and not _has_default_taps(sizes.get("depth", 12)):
            flags.append("--fusion.layers all")
        return " ".join([command, "--encoder.name TIMM-NAME", *flags]) + heads
    with torch.device("meta"):
        usual = build_vit(EncoderOptions(name=options.name))
    embed, block = usual.patch_embed, usual.blocks[0]
    assert isinstance(block.attn, nn.Module)
    scaled = any(key.endswith(("gamma_1", "ls1.gamma")) for key in usual.state_dict())
    own: list[tuple[str, Any, Any]] = [
        ("image-size", options.image_size, tuple(embed.img_size or ())),
        ("patch-size", options.patch_size, int(embed.patch_size[0])),
        ("in-chans", options.in_chans, 3),
        ("width", options.width, int(usual.embed_dim)),
        ("depth", options.depth, len(usual.blocks)),
        ("heads", options.heads, block.attn.num_heads),
        ("class-tokens", options.class_tokens, 1),
        ("relative-positions", options.relative_positions, None),
        ("layer-scale", options.layer_scale if bool(options.layer_scale) != scaled else None, None),
        ("mean", options.mean, IMAGENET_MEAN),
        ("std", options.std, IMAGENET_STD),
        ("hide", options.hide, "drop"),
    ]
    # Mask tokens in the encoder go with the decoder, target and loss of SimMIM; MAE's drops hidden patches.
    recipe = ["--recipe simmim"] if options.hide == "replace" else []
    if options.depth is not None and not _has_default_taps(options.depth):
        recipe.append("--fusion.layers all")
    flags = [f"--encoder.name {options.name}"]
    flags += [f"--encoder.{k} {spaced(v)}" for k, v, known in own if v is not None and v != known]
    return " ".join([command, *recipe, *flags]) + heads


def _has_default_taps(depth: int) -> bool:
    """Whether a network of that depth has the blocks that MFF fuses by default."""
    try:
        resolve_layers("default", depth)
    except LaminaError:
        return False
    return True


def method_command(name: str, foreign: Foreign) -> str:
    """The command that opens a whole method in Python; N and other words in capitals stand for values that
    the file does not state."""
    assert foreign.options is not None
    missing = {
        "heads": "N" if foreign.options.heads is None else "",
        "image_size": "(HEIGHT, WIDTH)" if foreign.options.image_size is None else "",
    }
    options = ", ".join(f"{key}={value}" for key, value in missing.items() if value)
    given = f", encoder=EncoderOptions({options})" if options else ""
    given += ", decoder_heads=N" if foreign.recipe_fields.get("decoder", {}).get("heads") is None else ""
    fusion = foreign.recipe_fields.get("fusion", {})
    given += ", layers=LAYERS" if fusion.get("kind") == "mff" and not fusion.get("layers") else ""
    imported = "EncoderOptions, load_foreign_method" if options else "load_foreign_method"
    code = f"from lamina import {imported}; load_foreign_method({name!r}{given})"
    return f"python -c {shlex.quote(code)}"


def _listed(title: str, groups: Iterable[Group]) -> list[tuple[str, str]]:
    listed = list(groups)
    more = [f"and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    lines = [str(group) for group in listed[:SHOWN]] + more
    return [(title if i == 0 else "", line) for i, line in enumerate(lines)]


def spaced(value: Any) -> str:
    """Several values with blanks between them, as the command line takes them."""
    if not isinstance(value, tuple | list):
        return str(value)
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)


def short(value: Any) -> str:
    """A value of a configuration in at most a line."""
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."
