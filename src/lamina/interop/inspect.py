"""What a path is (a run, an export, a tokenizer, weights of another tool) and the commands that use it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.records import read_json
from lamina.core.tensor_files import load_tensors
from lamina.core.text import counted_each, printable
from lamina.data.pack.files import read_index
from lamina.data.pack.open import PRETRAIN, is_pack
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign import Foreign, read_file, recognise, understood, weights_in
from lamina.interop.foreign.format import USUAL_HEADS, depth_of
from lamina.interop.inspect_view import (
    PARTS,
    SHOWN,
    Group,
    Inspection,
    describe_network,
    embed_command,
    grouped,
    method_command,
    pretrain_command,
    short,
    spaced,
)
from lamina.interop.metadata import check_one_export, export_files, export_metadata, is_sealed
from lamina.recipes.recipe import Recipe
from lamina.runs.model_spec import locate_step, parse_model
from lamina.runs.run import Run
from lamina.train import checkpoint
from lamina.train.divergence import skipped_steps, why_useless

_HEADS = ("head", "classifier", "fc_norm")
"""How names of the parts of an exported classifier beside its encoder begin."""


def inspect(path: str | Path) -> Inspection:
    """Find out what a path is: a run (also `run@step` or a checkpoint folder), an export, a classifier, a
    tokenizer, a pack of images, a file or folder of any format in `lamina.interop.foreign`, or weights of an
    unknown format.

    No code of a file is run, and nothing but tensors is unpickled.

    Raises:
        LaminaError: for a path that is missing, damaged, or no weights file, and a file that contains code.
    """
    name = str(path)
    place = Path(name).expanduser()
    found = weights_in(place)
    if parse_model(name).run is not None or (found is None and not place.exists() and "@" in name):
        return _run(name)
    if is_pack(str(place)):
        return _pack(name, place)
    config = _config(place / "config.json")
    if config.get("format") == "lamina-tokenizer":
        return _tokenizer(name, place, config)
    if found is None:
        if not place.exists():
            raise LaminaError(f"{name} does not exist; give a run, a weights file or a folder")
        there = ", ".join(sorted(f.name for f in place.iterdir())[:SHOWN]) if place.is_dir() else ""
        return Inspection(name, f"a folder without weights: {there or 'empty'}")
    tensors, clues = read_file(place)
    if about := export_metadata(place):
        check_one_export(place)
        return _export(name, tensors, about)
    if recognise(list(tensors)) is None:
        return _unknown(name, tensors)
    return _foreign(name, understood(tensors, clues, place.name), tensors)


def _pack(name: str, place: Path) -> Inspection:
    index = read_index(place)
    about = index.about
    how = "raw" if about.encoding == "raw" else f"jpeg of quality {about.quality}"
    facts = [
        ("packed from", printable(about.source)),
        ("images", f"{about.images:,}"),
        ("stored as", f"{how}, short sides of at most {about.side} px, {about.blob_bytes:,} bytes"),
    ]
    if about.held_out:
        parts = {"training": "train", "held out": "val"}
        facts += [
            (part, f"{len(index.views[split].indices):,} images")
            for part, split in parts.items()
            if split in index.views
        ]
    if about.left_out:
        facts.append(("left out", counted_each(about.left_out)))
    commands = (f"lamina pretrain {shlex.quote(name)}",) if PRETRAIN in index.views else ()
    return Inspection(name, "a pack of images of lamina", facts=tuple(facts), commands=commands)


def _run(spec: str) -> Inspection:
    place, step = locate_step(spec)
    run = Run(place)
    recipe = run.recipe()
    there = checkpoint.steps(run.checkpoints)
    if step not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise LaminaError(f"{place} has no checkpoint of step {step}; there are: {listed}")
    folder = run.checkpoints / f"step-{step}"
    wrong = checkpoint.verify(folder)
    wrong = f"it is damaged: {wrong}" if wrong else why_useless(folder)
    shapes = _shapes(folder / checkpoint.MODEL)
    parts = {name: _part_of_run(name, recipe) for name in shapes}
    fusion = recipe.fusion
    facts = (
        ("recipe", _recipe_in_words(recipe)),
        ("fusion", fusion.kind if fusion.kind != "mff" else f"mff of blocks {spaced(fusion.layers)}"),
        ("data", f"{run.source()}, {run.data().images} images"),
        ("checkpoints", f"steps {spaced(there)}"),
        *([("training", progress)] if wrong is None and (progress := skipped_steps(folder)) else []),
        *([("not usable", wrong)] if wrong else []),
    )
    return Inspection(
        spec,
        f"a run of lamina, step {step}",
        describe_network(recipe.encoder),
        sum(shapes.values()),
        facts,
        tuple(_in_parts(parts)),
        tuple(grouped(name for name, part in parts.items() if not part)),
        () if wrong else (embed_command(spec, recipe.encoder), _export_command(spec, recipe)),
    )


def _part_of_run(name: str, recipe: Recipe) -> str:
    """The part that a tensor of a checkpoint belongs to: the encoder, its fusion, the head of a classifier;
    "" for tensors that training alone needs."""
    plain = name.removeprefix("mim.")
    if plain.startswith("encoder.vit.") or plain == "encoder.shortcuts":
        return "encoder"
    if plain.startswith("fusion."):
        return "fusion"
    head = ("head.", "head_dist.", "pooling.", "neck.")
    return "classifier" if recipe.method == "supervised" and name.startswith(head) else ""


def _export_command(spec: str, recipe: Recipe) -> str:
    command = f"lamina export {shlex.quote(spec)} --out encoder.safetensors"
    # Plain timm has no fusion before its head, and no attentive pool.
    own = recipe.fusion.kind != "none" or recipe.supervised.pool == "attentive"
    return f"{command} --to lamina" if recipe.method == "supervised" and own else command


def _in_parts(parts: Mapping[str, str]) -> list[Group]:
    """Names in groups, part by part in the order of `PARTS`."""
    return [
        group for part in PARTS for group in grouped((n for n, own in parts.items() if own == part), part)
    ]


def _recipe_in_words(recipe: Recipe) -> str:
    if recipe.method == "supervised":
        return f"{recipe.name}, {len(recipe.labels.classes)} classes"
    return f"{recipe.name}, {recipe.decoder.kind} decoder, {recipe.target.kind} target"


def _export(name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Inspection:
    options = merge(EncoderOptions(), about.get("encoder") or {})
    fusion = about.get("fusion")
    has_fusion = fusion is not None and export_files(Path(name).expanduser()).fusion.is_file()
    facts = [("step", str(about.get("step"))), ("SHA-256", _digest(is_sealed(Path(name).expanduser())))]
    facts += [("fusion", f"{fusion['kind']}, in a file beside it")] if fusion and has_fusion else []
    if about.get("folded_residual_decay") is not None:
        facts.append(("residual decay", f"{about['folded_residual_decay']:g}, folded into the weights"))
    facts += _statistics(options)
    head = about.get("classifier")
    if isinstance(head, dict):
        facts.append(("classes", str(head.get("n_classes"))))
    return Inspection(
        name,
        f"{'a classifier' if isinstance(head, dict) else 'an encoder'} that lamina exported for timm",
        describe_network(options),
        _count(tensors),
        tuple(facts),
        tuple(_in_parts({n: "classifier" if n.startswith(_HEADS) else "encoder" for n in tensors})),
        (),
        (embed_command(name, options), pretrain_command(name, options)),
    )


def _tokenizer(name: str, place: Path, config: Mapping[str, Any]) -> Inspection:
    shapes: dict[str, int] = {}
    for file in sorted(place.glob("*.safetensors")):
        shapes |= {name: tensor.numel() for name, tensor in load_tensors(file, links=True)[0].items()}
    facts = [(str(k), short(v)) for k, v in config.items() if k != "format"]
    return Inspection(
        name,
        "a tokenizer that lamina trained",
        "",
        sum(shapes.values()),
        tuple(facts),
        tuple(grouped(shapes, "tokenizer")),
        (),
        (f"lamina pretrain DATA --out RUN --recipe beit --target.tokenizer {shlex.quote(name)}",),
    )


def _foreign(name: str, foreign: Foreign, tensors: Mapping[str, Tensor]) -> Inspection:
    options = foreign.options
    used = [g for part in PARTS for g in grouped(foreign.names.get(part, ()), part)]
    facts = [] if options is None else _statistics(options)
    network, commands = _unnamed(name, foreign) if options is None else _named(name, options)
    if foreign.head:
        shown = shlex.quote(name)
        commands.append(f"lamina pretrain DATA --out RUN --recipe eva --target.teacher {shown}")
    if foreign.decoder:
        commands.append(method_command(name, foreign))
    facts += [("assumed", "; ".join(foreign.assumed))] if foreign.assumed else []
    return Inspection(
        name,
        foreign.title,
        network,
        _count(tensors),
        tuple(facts),
        tuple(used),
        tuple(grouped(foreign.names.get("", ()))),
        tuple(commands),
    )


def _named(name: str, options: EncoderOptions) -> tuple[str, list[str]]:
    """A network in words, and the commands that use its weights."""
    ask = options.heads is None and options.width is not None
    return describe_network(options), [
        embed_command(name, options, ask),
        pretrain_command(name, options, ask),
    ]


def _unnamed(name: str, foreign: Foreign) -> tuple[str, list[str]]:
    """As `_named`, for weights that fit several networks of timm."""
    kernel, depth = foreign.encoder["patch_embed.proj.weight"], depth_of(foreign.encoder)
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
    ask = width not in USUAL_HEADS
    sizes = {"width": width, "depth": depth, "patch_size": patch} if ask else {}
    sizes |= {"in_chans": channels} if channels != 3 else {}
    words = f"width {width}, {depth} blocks, patch {patch} px; the file does not state which network"
    return words, [embed_command(name, None, ask), pretrain_command(name, None, ask, sizes)]


def _unknown(name: str, tensors: Mapping[str, Tensor]) -> Inspection:
    known = "MAE, CrossMAE, mmpretrain, BEiT, SimMIM, timm, transformers (ViT, ViTMAE, CLIP, DINOv2, DINOv3)"
    return Inspection(
        name,
        f"{len(tensors)} tensors of an unknown format; the known ones are: {known}",
        parameters=_count(tensors),
        ignored=tuple(grouped(tensors)),
    )


def _config(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file, links=True)
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def _shapes(file: Path) -> dict[str, int]:
    """How many numbers each tensor of a .safetensors file has, from its header alone."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            return {n: torch.Size(opened.get_slice(n).get_shape()).numel() for n in names}
    except (SafetensorError, OSError) as error:
        raise LaminaError(f"{file} is damaged: {error}") from None


def _digest(is_sealed: bool) -> str:
    return "verified" if is_sealed else "none: written before exports had one, so damage cannot be detected"


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values() if t.is_floating_point())


def _statistics(options: EncoderOptions) -> list[tuple[str, str]]:
    if not isinstance(options.mean, tuple) or not isinstance(options.std, tuple):
        return []
    return [("mean, std", f"{spaced(options.mean)}, {spaced(options.std)}")]
