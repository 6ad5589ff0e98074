"""A trained classifier as files: plain timm's own, or with its fusion where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.config import merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.tensor_files import save_tensors
from lamina.encoder.build import build_vit, timm_arguments, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import build_fusion
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.options import FusionOptions
from lamina.interop.export import other_epsilon, tell_epsilon, write_config
from lamina.interop.fold_residual_decay import fold_fusion
from lamina.interop.foreign import read_weights
from lamina.interop.metadata import KEY, check_one_export, export_files, export_metadata
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
"""What parts beside the encoder are called where plain timm must not take the rest for a classifier."""


@dataclass(frozen=True)
class ExportedClassifier:
    """The files of an export; `fusion` is None where plain timm reads the weights."""

    weights: Path
    config: Path
    fusion: Path | None
    norm_eps: float | None = None
    """Epsilon of the layer norms, where it is not that of the timm model of this name."""

    def __str__(self) -> str:
        files = ", ".join(str(file) for file in (self.weights, self.config, self.fusion) if file)
        return f"{files}{tell_epsilon(self.norm_eps)}"


def export_supervised(
    task: Supervised,
    encoder: EncoderOptions,
    fusion: FusionOptions | None,
    out: str | Path,
    *,
    class_names: Sequence[str] = (),
    step: int = 0,
    crop_share: float = 0.875,
    plain: bool = False,
) -> ExportedClassifier:
    """Write a classifier to `out`, a .safetensors file or a folder; files are replaced when whole.

    Without fusion the weights are a timm classifier's: `timm.create_model(architecture, **model_args)` of
    the config, then `load_state_dict(..., strict=True)`, gives the logits of images normalised by
    `pretrained_cfg`'s mean and std (a folder: `timm.create_model("local-dir:" + folder, pretrained=True)`,
    or `AutoModelForImageClassification.from_pretrained(folder)` of transformers);
    networks whose head reads the class token need no more than `timm.create_model(name, num_classes=n)`.

    With one, the fusion is part of the classifier: it goes to a file beside, and the head has a name of its
    own, so that timm does not take the rest for a classifier; so it is with an attentive pool.
    `load_supervised` reads both, and `load_encoder` the encoder in them. The logits are those of `task` (of
    its slow copy, where there is one), bit for bit; but a batch norm before the head is folded into it, up to
    rounding, and residual decay into the weights, up to the epsilon of the norms. A norm after pooling is
    timm's `fc_norm`.

    Args:
        task: the classifier.
        encoder, fusion: what its parts were built by; None is no fusion.
        class_names: written to the config, in the order of the labels.
        step: of the run.
        crop_share: share of the short side that images for evaluation keep (timm's crop_pct).
        plain: insist on plain timm.

    Raises:
        LaminaError: where plain timm is asked for and cannot compute this, and for a name with another
            ending.
    """
    task = task.average or task
    fused = None if isinstance(task.fusion, LastLayer) else fusion
    _check(task, fusion, class_names, plain)
    files = replace(_files(Path(out), fused is not None), norm_eps=other_epsilon(encoder))
    timms = fused is None and task.pool != "attentive"
    neck = task.options.neck if task.options.neck == "layer" else "none"
    # What loads these weights is a plain network: its shortcuts are whole.
    kept = replace(as_built(encoder, task.encoder), residual_decay=None)
    about = _described(task, kept, fused, class_names, step, crop_share, neck)
    plainly = _timm_config(task, kept, crop_share, class_names) if timms else {}
    config = {**plainly, KEY: about}
    header = {KEY: json.dumps(config, indent=2)}
    if files.fusion is not None:
        scales = task.encoder.tap_scales(task.fusion.layers)
        save_tensors(fold_fusion(task.fusion, scales).state_dict(), files.fusion, header)
    names = _names(task, timms)
    tensors = task.encoder.timm_state()
    if timms and neck == "layer":  # the head reads past the final norm
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.")}
    head = {names[name]: each for name, each in _head(task).items()}
    save_tensors({**tensors, **head}, files.weights, header)
    write_config(files.config, config)
    return files


def _described(
    task: Supervised,
    encoder: EncoderOptions,
    fusion: FusionOptions | None,
    class_names: Sequence[str],
    step: int,
    crop_share: float,
    neck: str,
) -> dict[str, Any]:
    """What `load_supervised` builds the parts by."""
    return {
        "format": FORMAT,
        "step": step,
        "crop_share": crop_share,
        "encoder": to_mapping(encoder),
        "folded_residual_decay": task.encoder.residual_decay,
        "fusion": None if fusion is None else to_mapping(fusion),
        "classifier": {
            "n_classes": task.n_classes,
            "pool": task.pool,
            "neck": neck,
            "class_names": list(class_names),
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
    said = about["classifier"]
    chosen = SupervisedOptions(pool=said["pool"], neck=said.get("neck", "none"))
    task = Supervised(encoder, fusion, int(said["n_classes"]), chosen)
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
    """What an exported classifier calls its classes, in the order of its logits; empty where unknown."""
    return tuple(_about(export_files(Path(path).expanduser()).weights)["classifier"]["class_names"])


def crop_share_of(path: str | Path) -> float | None:
    """Share of the short side that images for an exported classifier keep; None for a file that is no such
    export."""
    weights = export_files(Path(path).expanduser()).weights
    try:
        about = _about(weights)
    except LaminaError:
        return None
    return float(about["crop_share"])


def _check(task: Supervised, fusion: FusionOptions | None, names: Sequence[str], plain: bool) -> None:
    has_fusion = not isinstance(task.fusion, LastLayer)
    if has_fusion != (fusion is not None and fusion.kind != "none"):
        raise LaminaError("the fusion options are not those of this classifier; give what it was built by")
    if names and len(names) != task.n_classes:
        raise LaminaError(f"{len(names)} class names for {task.n_classes} classes; give one for each")
    if has_fusion and plain:
        raise LaminaError(
            "this classifier's head reads fused layers, which plain timm cannot compute; export it with its "
            "fusion (--to lamina; plain=False), or train with --fusion none"
        )
    if task.pool == "attentive" and plain:
        raise LaminaError(
            "this classifier pools by attention, which plain timm cannot compute; take --to lamina "
            "(plain=False)"
        )
    if not has_fusion and task.pool == "cls" and task.encoder.n_class > 1:
        raise LaminaError(
            "timm's head reads one class token, this one the mean of several; train with pool mean, or with "
            "class_tokens=1"
        )


def _files(out: Path, fused: bool) -> ExportedClassifier:
    if out.suffix not in ("", ".safetensors"):
        raise LaminaError(f"{out.name}: weights go to a name that ends in .safetensors, or a folder")
    weights, config, fusion = export_files(out)
    if not fused and fusion.exists():
        raise LaminaError(f"{fusion} belongs to another export; choose another place, or remove it")
    return ExportedClassifier(weights, config, fusion if fused else None)


def _timm_config(
    task: Supervised, options: EncoderOptions, crop_share: float, names: Sequence[str]
) -> dict[str, Any]:
    """As `timm_config`, of a classifier that plain timm can compute."""
    pool = "token" if task.pool == "cls" else "avg"
    heads = ["head", "head_dist"] if task.distilled else "head"
    arguments = {**timm_arguments(options), "num_classes": task.n_classes}
    if not task.distilled:  # such a network has but one way to pool, and takes no other word for it
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
    """All beside encoder and fusion by its own name; a batch norm is folded into the head."""
    state = {name: each for name, each in task.state_dict().items() if name.startswith(tuple(_OWN))}
    if isinstance(task.neck, nn.BatchNorm1d):
        folded = dict(zip(("head.weight", "head.bias"), fold_batch_norm(task.neck, task.head), strict=True))
        state = {name: each for name, each in {**state, **folded}.items() if not name.startswith("neck.")}
    return state


def _names(task: Supervised, timms: bool) -> dict[str, str]:
    """What the parts beside encoder and fusion are called in a file."""
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
        raise LaminaError(f"{weights.name} was not written by export_supervised; give a file or folder of it")
    return about
