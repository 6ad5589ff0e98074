"""What is known of a path, as rows of a table and as text, and the commands that use it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from lamina.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderOptions, build_vit

SHOWN = 12
PARTS = {"encoder": "encoder", "fusion": "fusion", "decoder": "decoder", "head": "projection"}


class Group(NamedTuple):
    """Tensors of a file that begin alike: what uses them ("" for nothing), the beginning, how many."""

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
        """Name and value of each line of a table; a name is empty where the line goes on from the last."""
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
    """Names by how they begin: up to the number of a block, else all but the last word."""
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
    parts += [f"{options.depth} blocks"] if options.depth else []
    parts += [f"{options.heads} heads" if options.heads else "heads unknown"] if options.width else []
    parts += [f"patch {options.patch_size} px"] if options.patch_size else []
    parts += [f"images {size[0]} x {size[-1]} px"] if size else []
    parts += [f"{options.in_chans} channels"]
    return ", ".join(parts)


def embed_command(name: str) -> str:
    """The command that writes features."""
    return f"lamina embed {shlex.quote(name)} DATA --out features.npz"


def pretrain_command(name: str, options: EncoderOptions | None) -> str:
    """The command that starts from these weights, with what differs from the named model's network."""
    command = f"lamina pretrain DATA --out RUN --init {shlex.quote(name)}"
    if options is None:
        return f"{command} --encoder.name TIMM-NAME"
    with torch.device("meta"):
        usual = build_vit(EncoderOptions(name=options.name))
    embed, block = usual.patch_embed, usual.blocks[0]
    assert isinstance(block.attn, nn.Module)
    own: list[tuple[str, Any, Any]] = [
        ("image-size", options.image_size, tuple(embed.img_size or ())),
        ("patch-size", options.patch_size, int(embed.patch_size[0])),
        ("in-chans", options.in_chans, 3),
        ("width", options.width, int(usual.embed_dim)),
        ("depth", options.depth, len(usual.blocks)),
        ("heads", options.heads, block.attn.num_heads),
        ("relative-positions", options.relative_positions, None),
        ("mean", options.mean, IMAGENET_MEAN),
        ("std", options.std, IMAGENET_STD),
        ("hide", options.hide, "drop"),
    ]
    flags = [f"--encoder.name {options.name}"]
    flags += [f"--encoder.{k} {spaced(v)}" for k, v, known in own if v is not None and v != known]
    return " ".join([command, *flags])


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
