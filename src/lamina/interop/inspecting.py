"""What a path is: a run, an export, a tokenizer, or weights that others trained, and what it is good for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lamina.encoder import EncoderOptions
from lamina.errors import LaminaError
from lamina.interop.foreign import Foreign, read_file, recognise, understood, weights_in
from lamina.interop.inspection import (
    PARTS,
    SHOWN,
    Inspection,
    describe_network,
    embed_command,
    grouped,
    pretrain_command,
    short,
    spaced,
)
from lamina.interop.loading import locate_step, run_folder
from lamina.interop.metadata import export_files, export_metadata
from lamina.options import merge
from lamina.recipes import Recipe
from lamina.runs import Run
from lamina.train import checkpoint, skipped_steps, why_useless


def inspect(path: str | Path) -> Inspection:
    """Say what a path is: a run (also `run@step` or a checkpoint folder), an export, a classifier, a
    tokenizer, a file or folder of any format in `lamina.interop.foreign`, or weights of no known kind.

    Nothing of a file is run, and nothing but tensors is unpickled.

    Raises:
        LaminaError: for what is not there, is damaged, wants to run code, or is no weights file.
    """
    name = str(path)
    place = Path(name).expanduser()
    found = weights_in(place)
    if run_folder(name) is not None or (found is None and not place.exists() and "@" in name):
        return _run(name)
    config = _config(place / "config.json") if place.is_dir() else {}
    if config.get("format") == "lamina-tokenizer":
        return _tokenizer(name, place, config)
    if found is None:
        if not place.exists():
            raise LaminaError(f"there is nothing at {name}; give a run, a weights file or a folder")
        there = ", ".join(sorted(f.name for f in place.iterdir())[:SHOWN]) if place.is_dir() else ""
        return Inspection(name, f"a folder without weights: {there or 'empty'}")
    tensors, clues = read_file(place)
    if about := export_metadata(place):
        return _export(name, tensors, about)
    if recognise(list(tensors)) is None:
        return _unknown(name, tensors)
    return _foreign(name, understood(tensors, clues, place.name), tensors)


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
    names = [(n, n.partition(".")[0]) for n in shapes]
    fusion = recipe.fusion
    facts = (
        ("recipe", _recipe_in_words(recipe)),
        ("fusion", fusion.kind if fusion.kind != "mff" else f"mff of blocks {spaced(fusion.layers)}"),
        ("data", f"{run.source()}, {run.data().images} images"),
        ("checkpoints", f"steps {spaced(there)}"),
        *([("training", progress)] if wrong is None and (progress := skipped_steps(folder)) else []),
        *([("not usable", wrong)] if wrong else []),
    )
    quoted = shlex.quote(spec)
    return Inspection(
        spec,
        f"a run of lamina, step {step}",
        describe_network(recipe.encoder),
        sum(shapes.values()),
        facts,
        tuple(
            group
            for part in ("encoder", "fusion")
            for group in grouped([name for name, own in names if own == part], part)
        ),
        tuple(grouped(name for name, own in names if own not in ("encoder", "fusion"))),
        ()
        if wrong
        else (
            f"lamina embed {quoted} DATA --out features.npz",
            f"lamina export {quoted} --out encoder.safetensors",
        ),
    )


def _recipe_in_words(recipe: Recipe) -> str:
    if recipe.method == "supervised":
        return f"{recipe.name}, {len(recipe.labels.classes)} classes"
    return f"{recipe.name}, {recipe.decoder.kind} decoder, {recipe.target.kind} target"


def _export(name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Inspection:
    options = merge(EncoderOptions(), about.get("encoder") or {})
    fusion = about.get("fusion")
    has_fusion = fusion is not None and export_files(Path(name).expanduser()).fusion.is_file()
    facts = [("step", str(about.get("step")))]
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
        tuple(grouped(tensors, "encoder")),
        (),
        (embed_command(name), pretrain_command(name, options)),
    )


def _tokenizer(name: str, place: Path, config: Mapping[str, Any]) -> Inspection:
    shapes: dict[str, int] = {}
    for file in sorted(place.glob("*.safetensors")):
        shapes |= _shapes(file)
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
    facts: list[tuple[str, str]] = []
    if options is None:
        kernel = foreign.encoder["patch_embed.proj.weight"]
        blocks = len({n.split(".")[1] for n in foreign.encoder if n.startswith("blocks.")})
        network = (
            f"width {kernel.shape[0]}, {blocks} blocks, patch {kernel.shape[-1]} px, which one is not said"
        )
        commands = [f"{embed_command(name)} --encoder TIMM-NAME", pretrain_command(name, None)]
    else:
        network = describe_network(options)
        facts += _statistics(options)
        commands = [embed_command(name), pretrain_command(name, options)]
        if options.heads is None and not foreign.title.startswith("timm"):
            commands = [f"in Python: load_encoder({name!r}, encoder=EncoderOptions(heads=...))"]
    if foreign.head:
        shown = shlex.quote(name)
        commands.append(f"lamina pretrain DATA --out RUN --recipe eva --target.teacher {shown}")
    if foreign.decoder:
        commands.append(f"in Python, with its decoder: load_foreign_method({name!r})")
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


def _unknown(name: str, tensors: Mapping[str, Tensor]) -> Inspection:
    known = "MAE, mmpretrain, BEiT, SimMIM, timm, transformers (ViT, ViTMAE, CLIP, DINOv2, DINOv3)"
    return Inspection(
        name,
        f"{len(tensors)} tensors of no format that is known; known are: {known}",
        parameters=_count(tensors),
        ignored=tuple(grouped(tensors)),
    )


def _config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
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


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values() if t.is_floating_point())


def _statistics(options: EncoderOptions) -> list[tuple[str, str]]:
    if not isinstance(options.mean, tuple) or not isinstance(options.std, tuple):
        return []
    return [("mean, std", f"{spaced(options.mean)}, {spaced(options.std)}")]
