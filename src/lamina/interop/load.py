"""Opens an encoder by its name, as a `Backbone`: a run, a step of it, a weights file, a timm model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.beit import Beit

from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.decoder.options import DecoderOptions
from lamina.encoder.build import build_vit, timm_arguments, wrap_vit
from lamina.encoder.networks import Network, set_epsilon
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import Fusion, build_fusion
from lamina.fusion.layer_mix import LayerMix
from lamina.fusion.options import FusionOptions
from lamina.interop.backbone import Backbone, Origin
from lamina.interop.foreign import Foreign, read_foreign, read_weights, weights_in
from lamina.interop.foreign.format import grid_of
from lamina.interop.foreign.methods import complete_options
from lamina.interop.load_weights import fill, load_weights_into, other_heads, put_encoder
from lamina.interop.metadata import check_one_export, export_files, export_metadata, export_reading
from lamina.interop.resizing import at_image_size
from lamina.interop.timm_models import fetch_published
from lamina.recipes.build import build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.runs.model_spec import locate_step, parse_model
from lamina.runs.run import Run, load_task
from lamina.train import checkpoint
from lamina.train.divergence import check_trained


def load_encoder(
    spec: str | Path,
    *,
    encoder: str | EncoderOptions | None = None,
    image_size: tuple[int, ...] | None = None,
    pretrained: bool = True,
    device: torch.device | str = "cpu",
) -> Backbone:
    """The frozen encoder that `spec` names:

    - a run folder (its newest checkpoint), `run@step`, or a checkpoint `run/checkpoints/step-N`, the folder
      or the weights file in it;
    - what `export_timm` wrote: the .safetensors file, or the folder;
    - weights of other tools, a .safetensors or .pth file or a folder of transformers or timm, of the formats
      in `lamina.interop.foreign`; for files under timm's names `encoder`, a timm name or options, is the
      network that they are for;
    - a timm model, `timm/NAME` or NAME, with its published weights unless `pretrained` is False;
    - `untrained:` before any of these: the same network as its training would start it (`untrained_like`).

    `encoder` also overrides sizes, channels and statistics of a timm model and of files of other tools, and
    gives what a file does not state, such as the attention heads of an unusual width; runs and exports state
    all of it.

    `image_size`, a side or height and width in px, opens it for other images than it was trained on:
    positions are resampled (`at_image_size`).

    Raises:
        LaminaError: where there is nothing of that name, or the weights do not fit or cannot be fetched.
    """
    if image_size is not None:
        found = load_encoder(spec, encoder=encoder, pretrained=pretrained, device=device)
        return at_image_size(found, image_size)
    named = parse_model(spec)
    name, path = named.name, named.path
    if named.untrained:
        trained = load_encoder(name, encoder=encoder, pretrained=False, device=device)
        untrained = untrained_like(trained)
        assert untrained is not None  # what was loaded by name has an origin
        return untrained
    options = EncoderOptions(name=encoder) if isinstance(encoder, str) else encoder
    if named.run is not None:
        backbone = _from_run(name)
    elif weights_in(path) is not None:
        backbone = _from_file(path, options)
    elif path.exists():
        raise LaminaError(
            f"{name} is neither a run nor an exported encoder: it has no recipe.yaml, no model.safetensors"
        )
    elif timm.is_model(named.timm_name):
        backbone = _from_timm(name, options or EncoderOptions(weight_init="timm"), pretrained)
    else:
        raise LaminaError(f"there is no encoder {name!r}; give a run folder, a weights file, or timm/NAME")
    _check_heads(backbone, options)
    return backbone.to(device)


def as_backbone(
    model: str | Path | Backbone,
    encoder: str | EncoderOptions | None = None,
    image_size: tuple[int, ...] | None = None,
) -> Backbone:
    """A backbone as it is, anything else by `load_encoder`; at another image size where one is given."""
    found = model if isinstance(model, Backbone) else load_encoder(model, encoder=encoder)
    return found if image_size is None else at_image_size(found, image_size)


def untrained_like(backbone: Backbone, seed: int | None = None) -> Backbone | None:
    """The same network before any training: for a run, its own first weights (or those of another `seed`).

    None for a backbone that was built from parts in Python, since nothing states how to build it again.
    """
    if backbone.origin is None:
        return None
    recipe = backbone.origin.recipe
    if seed is not None:
        recipe = replace(recipe, train=replace(recipe.train, seed=seed))
    task = build_task(recipe)
    origin = Origin(f"{backbone.origin.name}, untrained", None, recipe)
    found = Backbone(task.encoder, _single(task.fusion), origin).to(backbone.encoder.mean.device)
    size = backbone.origin.image_size
    return found if size is None else at_image_size(found, size)


def _check_heads(backbone: Backbone, given: EncoderOptions | None) -> None:
    """Raise where another number of attention heads was given than the network has."""
    own = int(backbone.encoder.vit.blocks[0].attn.num_heads)  # type: ignore[union-attr, arg-type]
    if given is not None and given.heads not in (None, own):
        assert backbone.origin is not None
        raise other_heads(backbone.origin.name, own, given.heads)


def weights_of(spec: str | Path) -> Path:
    """The weights file that training starts from: that of a run's checkpoint (RUN, RUN@STEP or its folder);
    any other path as it is. Raises for a checkpoint that `check_trained` refuses."""
    named = parse_model(spec)
    if named.run is None:
        return Path(spec).expanduser()
    place, step = locate_step(spec)
    folder = Run(place).checkpoints / f"step-{step}"
    if folder.is_dir():
        check_trained(folder)
    return folder / checkpoint.MODEL


def open_weights(spec: str | Path) -> Foreign:
    """The weights that `spec` names, as `load_encoder` takes it, without a network around them.

    Raises:
        LaminaError: where there is nothing of that name, or it cannot be read or fetched.
    """
    path = weights_of(spec)
    if weights_in(path) is not None:
        return read_foreign(path)
    named = parse_model(spec)
    name = named.text
    if path.exists():
        raise LaminaError(f"{name} is neither a run nor weights: it has no recipe.yaml, no model.safetensors")
    if named.untrained or not timm.is_model(named.timm_name):
        raise LaminaError(f"there are no weights {name!r}; give a run, a weights file, or timm/NAME")
    options = _timm_options(named.timm_name, EncoderOptions(weight_init="timm"))
    state = _fetch(options).state_dict()
    return Foreign(f"timm's {options.name}", state, {"encoder": tuple(state)}, options)


def _from_run(spec: str) -> Backbone:
    place, step = locate_step(spec)
    task, recipe = load_task(place, step)
    return Backbone(task.encoder, _single(task.fusion), Origin(str(place), step, recipe))


def _single(fusion: Fusion) -> Fusion | None:
    """The fusion if its result is one set of features, else None: a mix gives one for each decoder block."""
    return None if isinstance(fusion, LayerMix) else fusion


def _from_file(path: Path, options: EncoderOptions | None) -> Backbone:
    about = export_metadata(path)
    if about.keys() >= {"encoder", "fusion", "step", "crop_share"}:
        return _from_export(path, about)
    return _from_foreign(path, options)


def _from_export(path: Path, about: Mapping[str, Any]) -> Backbone:
    check_one_export(path)
    options, step = merge(EncoderOptions(), about["encoder"]), int(about["step"])
    fusion = FusionOptions(kind="none")
    if about["fusion"] is not None and export_files(path).fusion.is_file():
        fusion = merge(FusionOptions(), about["fusion"])
    elif about["fusion"] is not None:
        missing = f"{path} was exported with a fusion, but {export_files(path).fusion.name} is missing"
        print(f"{missing}: it has no fused features", file=sys.stderr)
    if fusion.kind == "mix":  # not one set of features
        fusion = FusionOptions(kind="none")
    recipe = _recipe(options, fusion)
    recipe = replace(recipe, data=export_reading(about))
    encoder = wrap_vit(build_vit(recipe.encoder), recipe.encoder)
    load_weights_into(encoder.vit, path)  # wrapped: an attention pool is no part of what was exported
    built = build_fusion(recipe.fusion, encoder.width, encoder.depth)
    if fusion.kind != "none":
        checkpoint.load_model_tensors(built, read_weights(export_files(path).fusion))
    return Backbone(encoder, built, Origin(str(path), step, recipe))


def _from_foreign(path: Path, options: EncoderOptions | None) -> Backbone:
    foreign = read_foreign(path)
    fusion = FusionOptions(kind="none")
    if foreign.fusion and foreign.recipe_fields["fusion"].get("layers"):  # of MFF, and known
        fusion = merge(fusion, foreign.recipe_fields["fusion"])
    recipe = _recipe(complete_options(foreign, options, path.name), fusion)
    vit = build_vit(recipe.encoder)
    # A size that is given for a file which states none is that of its own positions.
    size = None if options is None or options.image_size is None else recipe.encoder.image_size
    grid = None if size is None else grid_of(size, vit.patch_embed.proj.weight)
    put_encoder(vit, foreign, path.name, grid, recipe.encoder.init_channels)
    built = build_fusion(recipe.fusion, vit.embed_dim, len(vit.blocks))
    if fusion.kind != "none":
        fill(built, foreign.fusion, path.name)
    return Backbone(wrap_vit(vit, recipe.encoder), built, Origin(str(path), None, recipe))


def load_projected(
    path: str | Path, encoder: EncoderOptions | None = None
) -> tuple[Network, tuple[float, ...], tuple[float, ...]]:
    """A CLIP tower of transformers with its projection as timm's `head`, and its mean and std on [0, 1].

    Raises:
        LaminaError: for a file without a projection, and as `load_encoder`.
    """
    path = Path(path)
    foreign = read_foreign(path)
    if not foreign.head:
        raise LaminaError(f"{path.name} is {foreign.title} without a projection; use a CLIP model with one")
    options = _recipe(complete_options(foreign, encoder, path.name), FusionOptions(kind="none")).encoder
    arguments = {**timm_arguments(options), "num_classes": len(foreign.head["bias"])}
    vit: Network = timm.create_model(options.name, **arguments)  # type: ignore[assignment]
    head = {f"head.{name}": tensor for name, tensor in foreign.head.items()}
    put_encoder(vit, replace(foreign, encoder={**foreign.encoder, **head}), path.name)
    if options.norm_eps is not None:
        set_epsilon(vit, options.norm_eps)
    assert isinstance(options.mean, tuple)
    assert isinstance(options.std, tuple)
    return vit.eval(), options.mean, options.std


def _timm_options(name: str, options: EncoderOptions) -> EncoderOptions:
    """The options of a timm model: as given, with the statistics that it was published with."""
    known = timm.get_pretrained_cfg(name)
    if known is not None and options.in_chans == len(known.mean):
        options = replace(options, mean=options.mean or known.mean, std=options.std or known.std)
    return _recipe(replace(options, name=name), FusionOptions(kind="none")).encoder


def _from_timm(spec: str, options: EncoderOptions, pretrained: bool) -> Backbone:
    recipe = _recipe(_timm_options(parse_model(spec).timm_name, options), FusionOptions(kind="none"))
    vit = _fetch(recipe.encoder) if pretrained else build_vit(recipe.encoder)
    return Backbone(wrap_vit(vit, recipe.encoder), None, Origin(spec, None, recipe))


def _fetch(options: EncoderOptions) -> Network:
    found: Network = fetch_published(  # type: ignore[assignment]
        options.name, "a weights file", **timm_arguments(options)
    )
    return found


def _recipe(options: EncoderOptions, fusion: FusionOptions) -> Recipe:
    """The smallest recipe that builds this network again, resolved."""
    with torch.device("meta"):
        whole_grid = isinstance(build_vit(options), Beit)
    recipe = Recipe(name="encoder", encoder=replace(options, hide="drop"), fusion=fusion)
    if whole_grid:  # a Beit has no way to drop patches
        encoder = replace(options, hide="replace")
        recipe = replace(recipe, encoder=encoder, decoder=DecoderOptions(kind="linear"))
    return resolve(recipe)
