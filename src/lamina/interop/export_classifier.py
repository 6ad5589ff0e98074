"""Exports a trained classifier: as plain timm reads it, or with its fusion as lamina reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.config import merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.tensor_files import save_tensors
from lamina.data.options import DataOptions, reading_facts
from lamina.encoder.build import build_vit, timm_arguments, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import build_fusion
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.options import FusionOptions
from lamina.interop.export import DATA, Exported, other_epsilon, write_config
from lamina.interop.fold_residual_decay import fold_fusion
from lamina.interop.foreign import read_weights
from lamina.interop.metadata import KEY, check_one_export, export_files, export_metadata, export_reading
from lamina.interop.timm_models import as_built, timm_config
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions
from lamina.supervised.pooling import fold_batch_norm
from lamina.train import checkpoint

FORMAT = 1
_OWN = {
    "head.": "classifier.",
    "head_dist.": "classifier_dist.",
    "pooling.": "classifier_pool.",
    "neck.": "classifier_norm.",
}
"""Names of the parts beside the encoder in files that plain timm cannot compute with: under its own names, it
would take the other tensors for a complete classifier."""


def export_supervised(
    task: Supervised,
    encoder: EncoderOptions,
    fusion: FusionOptions | None,
    out: str | Path,
    *,
    class_names: Sequence[str] = (),
    step: int = 0,
    data: DataOptions = DATA,
    plain: bool = False,
) -> Exported:
    """Write a classifier to `out`, a .safetensors file or a folder; files are replaced when whole.

    Without fusion the weights are a timm classifier's: `timm.create_model(architecture, **model_args)` of
    the config, then `load_state_dict(..., strict=True)`, gives the logits of images normalised by
    `pretrained_cfg`'s mean and std (a folder: `timm.create_model("local-dir:" + folder, pretrained=True)`,
    or `AutoModelForImageClassification.from_pretrained(folder)` of transformers);
    networks whose head reads the class token need no more than `timm.create_model(name, num_classes=n)`.

    With a fusion, which is then part of the classifier, the fusion goes to a file beside the weights, and the
    head has another name, so that timm does not take the other tensors for a complete classifier; the same
    holds for an attentive pool. `load_supervised` reads both, and `load_encoder` the encoder in them. The
    logits are those of `task` (of its slow copy, where there is one), bit for bit; but a batch norm before
    the head is folded into it, up to rounding, and residual decay into the weights, up to the epsilon of the
    norms. A norm after pooling is timm's `fc_norm`.

    Args:
        task: the classifier.
        encoder, fusion: the options that its parts were built by; None: no fusion.
        class_names: written to the config, in the order of the labels.
        step: of the run.
        data: how images are read, and of which share of the short side images for evaluation are (timm's
            crop_pct).
        plain: refuse a classifier that plain timm cannot compute.

    Raises:
        LaminaError: for such a classifier, and for an `out` that `Exported.at` refuses.
    """
    task = task.average or task
    fused = None if isinstance(task.fusion, LastLayer) else fusion
    _check(task, fusion, class_names, plain)
    files = Exported.at(Path(out), fused is not None, step)
    files = replace(files, norm_eps=other_epsilon(encoder), reading=reading_facts(data))
    timms = fused is None and task.pool != "attentive"
    # The network that loads these weights is a plain one, without residual decay.
    kept = replace(as_built(encoder, task.encoder), residual_decay=None)
    config = _timm_config(task, kept, data.eval_crop_share, class_names) if timms else {}
    config[KEY] = _described(task, kept, fused, class_names, step, data)
    header = {KEY: json.dumps(config, indent=2)}
    if files.fusion is not None:
        scales = task.encoder.tap_scales(task.fusion.layers)
        save_tensors(fold_fusion(task.fusion, scales).state_dict(), files.fusion, header)
    save_tensors(_tensors(task, timms), files.weights, header)
    write_config(files.config, config)
    return files


def _tensors(task: Supervised, timms: bool) -> dict[str, Tensor]:
    """The encoder and the head under the names of the file."""
    tensors = task.encoder.timm_state()
    if timms and task.options.neck == "layer":  # the head does not read the final norm
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.")}
    names = _names(task, timms)
    return {**tensors, **{names[name]: each for name, each in _head(task).items()}}


def _described(
    task: Supervised,
    encoder: EncoderOptions,
    fusion: FusionOptions | None,
    class_names: Sequence[str],
    step: int,
    data: DataOptions,
) -> dict[str, Any]:
    """The metadata by which `load_supervised` builds the parts."""
    return {
        "format": FORMAT,
        "step": step,
        "crop_share": data.eval_crop_share,
        "reading": reading_facts(data),
        "encoder": to_mapping(encoder),
        "folded_residual_decay": task.encoder.residual_decay,
        "fusion": None if fusion is None else to_mapping(fusion),
        "classifier": {
            "n_classes": task.n_classes,
            "pool": task.pool,
            "neck": task.options.neck if task.options.neck == "layer" else "none",
            "class_names": list(class_names),
            "several": task.several,
        },
    }


def load_supervised(path: str | Path, device: torch.device | str = "cpu") -> Supervised:
    """The classifier that `export_supervised` wrote, in evaluation mode, without a teacher.

    Raises:
        LaminaError: where there is none at `path`, or it is damaged.
    """
    place = Path(path).expanduser()
    files = export_files(place)
    about = _about(files.weights)
    check_one_export(place)
    options = merge(EncoderOptions(), about["encoder"])
    encoder = wrap_vit(build_vit(options), options)
    kind = FusionOptions(kind="none") if about["fusion"] is None else merge(FusionOptions(), about["fusion"])
    fusion = build_fusion(kind, encoder.width, encoder.depth)
    head = about["classifier"]
    chosen = SupervisedOptions(pool=head["pool"], neck=head.get("neck", "none"))
    several = head.get("several") is True
    task = Supervised(encoder, fusion, int(head["n_classes"]), chosen, several=several)
    tensors = read_weights(files.weights)
    names = _names(task, kind.kind == "none" and task.pool != "attentive")
    state = {own: tensors.pop(name) for own, name in names.items() if name in tensors}
    state |= {f"encoder.vit.{name}": tensor for name, tensor in tensors.items()}
    if chosen.neck == "layer":  # plain timm has no place for the final norm, which the head does not read
        norm = {f"encoder.vit.norm.{name}": tensor for name, tensor in encoder.norm.state_dict().items()}
        state = {**norm, **state}
    if kind.kind != "none":
        state |= {f"fusion.{name}": tensor for name, tensor in read_weights(files.fusion).items()}
    checkpoint.load_model_tensors(task, state)
    return task.eval().to(device)


def class_names(path: str | Path) -> tuple[str, ...]:
    """Names of the classes of an exported classifier, in the order of its logits; empty where unknown."""
    return tuple(_about(export_files(Path(path).expanduser()).weights)["classifier"]["class_names"])


def reading_of(path: str | Path) -> DataOptions | None:
    """How images for an exported classifier are read, and of which share of their short side they are; None
    for a file that is no such export."""
    weights = export_files(Path(path).expanduser()).weights
    try:
        about = _about(weights)
    except LaminaError:
        return None
    return export_reading(about)


def _check(task: Supervised, fusion: FusionOptions | None, names: Sequence[str], plain: bool) -> None:
    has_fusion = not isinstance(task.fusion, LastLayer)
    if has_fusion != (fusion is not None and fusion.kind != "none"):
        raise LaminaError(
            "the fusion options are not those of this classifier; give the options that it was built by"
        )
    if names and len(names) != task.n_classes:
        raise LaminaError(f"{len(names)} class names for {task.n_classes} classes; give one for each")
    if has_fusion and plain:
        raise LaminaError(
            "the head of this classifier reads fused layers, which plain timm cannot compute; export it with "
            "its fusion (--to lamina; in Python: plain=False), or train with --fusion none"
        )
    if task.pool == "attentive" and plain:
        raise LaminaError(
            "this classifier pools tokens by attention, which plain timm cannot compute; use --to lamina (in "
            "Python: plain=False)"
        )
    if not has_fusion and task.pool == "cls" and task.encoder.n_class > 1:
        raise LaminaError(
            "timm's head reads one class token, and this head the mean of several; train with "
            "--supervised.pool mean, or with --encoder.class-tokens 1"
        )


def _timm_config(
    task: Supervised, options: EncoderOptions, crop_share: float, names: Sequence[str]
) -> dict[str, Any]:
    """As `timm_config`, of a classifier that plain timm can compute."""
    pool = "token" if task.pool == "cls" else "avg"
    heads = ["head", "head_dist"] if task.distilled else "head"
    arguments = {**timm_arguments(options), "num_classes": task.n_classes}
    if not task.distilled:  # a distilled network has only one pooling, and no argument for it
        arguments["global_pool"] = pool
    if task.options.neck == "layer" and task.pool == "mean":
        arguments |= {name: True for name in ("fc_norm", "use_fc_norm") if name in arguments}
    return timm_config(
        options,
        task.encoder,
        arguments,
        crop_share,
        pool=pool,
        n_classes=task.n_classes,
        heads=heads,
        class_names=names,
    )


def _head(task: Supervised) -> dict[str, Tensor]:
    """The parts beside encoder and fusion by their own names; a batch norm is folded into the head."""
    state = {name: each for name, each in task.state_dict().items() if name.startswith(tuple(_OWN))}
    if isinstance(task.neck, nn.BatchNorm1d):
        folded = dict(zip(("head.weight", "head.bias"), fold_batch_norm(task.neck, task.head), strict=True))
        state = {name: each for name, each in {**state, **folded}.items() if not name.startswith("neck.")}
    return state


def _names(task: Supervised, timms: bool) -> dict[str, str]:
    """The names in the file of the parts beside encoder and fusion, by their own names."""
    norm = "fc_norm." if task.pool == "mean" else "norm."
    known = {"head.": "head.", "head_dist.": "head_dist.", "neck.": norm} if timms else _OWN
    return {
        own: known[part] + own.removeprefix(part)
        for own in task.state_dict()
        for part in known
        if own.startswith(part)
    }


def _about(weights: Path) -> Mapping[str, Any]:
    if not weights.is_file():
        raise LaminaError(f"there is no weights file {weights}")
    about = export_metadata(weights)
    if "classifier" not in about:
        raise LaminaError(f"{weights.name} is not a classifier that lamina exported; give its file or folder")
    return about
