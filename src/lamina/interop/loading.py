"""From what an encoder is called to a `Backbone`: a run, a step of it, a weights file, a timm name."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models.beit import Beit

from lamina.build import build_task, resolve
from lamina.decoder import DecoderOptions
from lamina.encoder import EncoderOptions, Network, build_vit, timm_arguments, wrap_vit
from lamina.errors import LaminaError
from lamina.fusion import FusionOptions, build_fusion
from lamina.interop.backbone import Backbone, Origin
from lamina.interop.weights import PICKLES, load_weights_into, read_weights
from lamina.options import merge
from lamina.recipes import Recipe
from lamina.runs import Run, load_task
from lamina.train import checkpoint

_STEP = re.compile(r"(?P<run>.+)@(?P<step>\d+)")


class ExportFiles(NamedTuple):
    """The files of an exported encoder; `fusion` is there for a method that has one."""

    weights: Path
    config: Path
    fusion: Path


def export_files(place: Path) -> ExportFiles:
    """`x.safetensors` has `x.json` and `x.fusion.safetensors` beside it; a folder, or `model.safetensors` in
    it, has timm's names."""
    if place.suffix and place.name != "model.safetensors" and not place.is_dir():
        return ExportFiles(place, place.with_suffix(".json"), place.with_suffix(".fusion.safetensors"))
    folder = place.parent if place.name == "model.safetensors" else place
    return ExportFiles(
        *(folder / name for name in ("model.safetensors", "config.json", "fusion.safetensors"))
    )


def load_encoder(
    spec: str | Path,
    *,
    encoder: str | EncoderOptions | None = None,
    pretrained: bool = True,
    device: torch.device | str = "cpu",
) -> Backbone:
    """The frozen encoder that `spec` names:

    - a run folder (its newest checkpoint), `run@step`, or a checkpoint folder `run/checkpoints/step-N`;
    - what `export_timm` wrote: the .safetensors file, or the folder;
    - any other .safetensors or .pth file under timm's names: `encoder`, a timm name or options, says
      which network it is for;
    - a timm model, `timm/NAME` or NAME, with its published weights unless `pretrained` is False.

    `encoder` also overrides sizes, channels and statistics of a timm model; runs and exports know theirs.

    Raises:
        LaminaError: where nothing is called so, the weights do not fit, or they cannot be fetched.
    """
    name = str(spec)
    options = EncoderOptions(name=encoder) if isinstance(encoder, str) else encoder
    path = Path(name).expanduser()
    if _is_run(name):
        backbone = _from_run(name)
    elif path.is_file() or (path / "model.safetensors").is_file():
        backbone = _from_file(path, options)
    elif path.exists():
        raise LaminaError(
            f"{name} is neither a run nor an exported encoder: no recipe.yaml, no model.safetensors"
        )
    elif timm.is_model(name.removeprefix("timm/")):
        backbone = _from_timm(name, options or EncoderOptions(start="timm"), pretrained)
    else:
        raise LaminaError(f"there is no encoder {name!r}; give a run folder, a weights file, or timm/NAME")
    return backbone.to(device)


def untrained_like(backbone: Backbone, seed: int | None = None) -> Backbone | None:
    """The same network before any training: for a run, its own first weights (or those of another `seed`).

    None where a backbone was put together by hand and nothing says how to build it afresh.
    """
    if backbone.origin is None:
        return None
    recipe = backbone.origin.recipe
    if seed is not None:
        recipe = replace(recipe, train=replace(recipe.train, seed=seed))
    task = build_task(recipe)
    origin = Origin(f"{backbone.origin.name}, untrained", None, recipe)
    return Backbone(task.encoder, task.fusion, origin).to(backbone.encoder.mean.device)


def locate_step(spec: str) -> tuple[Path, int]:
    """The run folder and the step that `spec` names: RUN (its newest good checkpoint), RUN@STEP, or
    RUN/checkpoints/step-N."""
    path = Path(spec).expanduser()
    if _is_checkpoint(path):
        return path.parent.parent, int(path.name.removeprefix("step-"))
    match = _STEP.fullmatch(spec)
    if match is not None and not path.exists():
        return Path(match["run"]).expanduser(), int(match["step"])
    run = Run(path)
    run.recipe()  # says so where this is no run
    newest = checkpoint.newest_good(run.checkpoints, lambda line: print(line, file=sys.stderr))
    if newest is None:
        raise LaminaError(f"{run.path} has no checkpoint yet; wait for the first, or train with --resume")
    return run.path, int(newest.name.removeprefix("step-"))


def _is_run(spec: str) -> bool:
    path = Path(spec).expanduser()
    if path.exists():
        return Run(path.parent.parent if _is_checkpoint(path) else path).exists()
    match = _STEP.fullmatch(spec)
    return match is not None and Run(Path(match["run"]).expanduser()).exists()


def _is_checkpoint(path: Path) -> bool:
    """Whether a path has the form RUN/checkpoints/step-N."""
    return path.parent.name == "checkpoints" and re.fullmatch(r"step-[0-9]+", path.name) is not None


def _from_run(spec: str) -> Backbone:
    place, step = locate_step(spec)
    task, recipe = load_task(place, step)
    return Backbone(task.encoder, task.fusion, Origin(str(place), step, recipe))


def _from_file(path: Path, options: EncoderOptions | None) -> Backbone:
    about = _about(path)
    step, fusion = None, FusionOptions(kind="none")
    if about is not None:
        options, step = merge(EncoderOptions(), about["encoder"]), int(about["step"])
        if about["fusion"] is not None and export_files(path).fusion.is_file():
            fusion = merge(FusionOptions(), about["fusion"])
    if options is None:
        raise LaminaError(f"{path.name} does not say which network it is for; name it with --encoder")
    recipe = _recipe(options, fusion)
    if about is not None:
        recipe = replace(recipe, data=replace(recipe.data, eval_crop_share=float(about["crop_share"])))
    vit = build_vit(recipe.encoder)
    load_weights_into(vit, path)
    built = build_fusion(recipe.fusion, vit.embed_dim, len(vit.blocks))
    if fusion.kind != "none":
        checkpoint.load_model_tensors(built, read_weights(export_files(path).fusion))
    return Backbone(wrap_vit(vit, recipe.encoder), built, Origin(str(path), step, recipe))


def _from_timm(spec: str, options: EncoderOptions, pretrained: bool) -> Backbone:
    name = spec.removeprefix("timm/")
    known = timm.get_pretrained_cfg(name)
    if known is not None and options.in_chans == len(known.mean):
        options = replace(options, mean=options.mean or known.mean, std=options.std or known.std)
    recipe = _recipe(replace(options, name=name), FusionOptions(kind="none"))
    vit = _fetch(recipe.encoder) if pretrained else build_vit(recipe.encoder)
    return Backbone(wrap_vit(vit, recipe.encoder), None, Origin(spec, None, recipe))


def _fetch(options: EncoderOptions) -> Network:
    try:
        vit: Network = timm.create_model(  # type: ignore[assignment]
            options.name, pretrained=True, **timm_arguments(options)
        )
    except Exception as error:  # offline, unknown to the hub, gated, damaged: each library has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LaminaError(
            f"the weights of {options.name} could not be loaded ({reason}); fetch them once where there is "
            "a network, or give a weights file and --encoder"
        ) from error
    return vit


def _recipe(options: EncoderOptions, fusion: FusionOptions) -> Recipe:
    """The least that builds this network again; without a mask there is nothing to hide."""
    with torch.device("meta"):
        whole_grid = isinstance(build_vit(options), Beit)
    recipe = Recipe(name="encoder", encoder=replace(options, hide="drop"), fusion=fusion)
    if whole_grid:  # a Beit has no way to drop patches
        encoder = replace(options, hide="replace")
        recipe = replace(recipe, encoder=encoder, decoder=DecoderOptions(kind="linear"))
    return resolve(recipe)


def _about(path: Path) -> dict[str, Any] | None:
    """What `export_timm` said of a file: in its header, or in the JSON beside it if the header was lost."""
    weights, beside, _ = export_files(path)
    if weights.suffix in PICKLES:
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get("lamina")
    except (SafetensorError, OSError) as error:
        raise LaminaError(f"{weights.name} is damaged or no safetensors file: {error}") from None
    if text is None and beside.is_file():
        text = beside.read_text(encoding="utf-8")
    try:
        about = json.loads(text).get("lamina") if text is not None else None
    except (ValueError, AttributeError):
        return None
    return (
        about
        if isinstance(about, dict) and about.keys() >= {"encoder", "fusion", "step", "crop_share"}
        else None
    )
