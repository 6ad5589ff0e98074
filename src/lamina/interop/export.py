"""Exports a trained encoder for plain timm: safetensors under timm's names, and timm's config beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lamina.core.config import to_mapping
from lamina.core.errors import LaminaError
from lamina.core.records import write_json
from lamina.core.tensor_files import save_tensors
from lamina.data.options import EARLIER_DECODING, DataOptions, reading_facts
from lamina.data.value_range import BY_FILE
from lamina.encoder.build import own_epsilon, timm_arguments
from lamina.encoder.options import EncoderOptions
from lamina.fusion.options import FusionOptions
from lamina.interop.fold_residual_decay import fold_fusion
from lamina.interop.metadata import KEY, export_files
from lamina.interop.timm_models import as_built, timm_config
from lamina.recipes.build import Task
from lamina.runs.model_spec import locate_step
from lamina.runs.run import load_task

FORMAT = 1
DATA = DataOptions()


@dataclass(frozen=True)
class Exported:
    """The files of an exported encoder or classifier. `fusion` is None for a method without one, and where it
    was left out for the reason in `left_out`."""

    weights: Path
    config: Path
    fusion: Path | None
    step: int
    left_out: str | None = None
    norm_eps: float | None = None
    """Epsilon of the layer norms, where it is not that of the timm model of this name."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """How images were read, where other tools do not do it so: pages, range of values, nodata."""

    def __str__(self) -> str:
        files = [self.weights, self.config, *([self.fusion] if self.fusion else [])]
        left = f"; no fusion: {self.left_out}" if self.left_out else ""
        return f"step {self.step}: {', '.join(map(str, files))}{left}{self._epsilon_note}{self._reading_note}"

    @property
    def _reading_note(self) -> str:
        names = [name for name in EARLIER_DECODING if name in self.reading]
        values = {name: self.reading[name] for name in names}
        if not values or values == {"nodata": BY_FILE}:
            return ""
        named = ", ".join(f"data.{name} {value}" for name, value in values.items())
        return f"; its images were read with {named}: lamina does so again, other tools have to be told"

    @property
    def _epsilon_note(self) -> str:
        if self.norm_eps is None:
            return ""
        return (
            f"; the layer norms of lamina have an epsilon of {self.norm_eps:g}, but timm.create_model gives "
            f"them the model's own: in timm, set `eps = {self.norm_eps:g}` of each LayerNorm"
        )

    @classmethod
    def at(cls, out: Path, has_fusion: bool, step: int) -> Exported:
        """The files of `export_files`, before anything is written.

        Raises:
            LaminaError: for a name with another ending than .safetensors, and where the fusion of another
                export would stay beside weights without one.
        """
        if out.suffix not in ("", ".safetensors"):
            raise LaminaError(
                f"{out} cannot be the file of an export; give a name that ends in .safetensors, or a folder"
            )
        weights, config, fusion = export_files(out)
        if not has_fusion and fusion.exists():
            raise LaminaError(
                f"{fusion} belongs to another export; choose another --out, or remove that file"
            )
        return cls(weights, config, fusion if has_fusion else None, step)


def other_epsilon(options: EncoderOptions) -> float | None:
    """The epsilon of the layer norms, where it is not the named model's, since no argument of timm sets it;
    else None."""
    eps = options.norm_eps
    return None if eps is None or eps == own_epsilon(replace(options, norm_eps=None)) else eps


def export_timm(run: str | Path, out: str | Path) -> Exported:
    """Write the encoder of a run (`run`, `run@step` or a checkpoint folder) for plain timm.

    `out` is a .safetensors file or a folder. The file's own metadata and the JSON beside it hold timm's
    `architecture` and `model_args`, so that `timm.create_model(architecture, **model_args)` followed by
    `load_state_dict(..., strict=True)` gives the features of `Backbone` bit for bit on images normalised by
    `pretrained_cfg`'s mean and std. A folder is read by `timm.create_model("local-dir:" + folder,
    pretrained=True)`, and by `AutoModel.from_pretrained(folder)` and `AutoImageProcessor` of transformers.
    Fusion weights are no part of a timm model and go to a file of their own.

    Where layer norms have another epsilon than the named model's (`Exported.norm_eps`), timm needs it set by
    hand; lamina reads it from the file.

    Residual decay is no part of a timm model either: it is folded into the weights, and then the normed
    features are the same up to the epsilon of the norms. A fusion beside it is folded too, or left out where
    that is impossible (`Exported.left_out`).

    Raises:
        LaminaError: where there is no such run or checkpoint, and for an `out` that `Exported.at` refuses.
    """
    place, step = locate_step(run)
    task, recipe = load_task(place, step)
    return write_encoder(task, recipe.encoder, recipe.fusion, Path(out), step, recipe.data)


def write_encoder(
    method: Task,
    encoder: EncoderOptions,
    fusion: FusionOptions | None,
    out: Path,
    step: int,
    data: DataOptions = DATA,
) -> Exported:
    """Write a method's encoder to `out`; files are replaced when whole.

    `fusion=None` leaves a fusion out. `data` says how images are read, and of which share of the short side
    images for evaluation are (timm's crop_pct).
    """
    fused, left_out = None, None
    if fusion is not None and fusion.kind != "none":
        try:
            fused = fold_fusion(method.fusion, method.encoder.tap_scales(method.fusion.layers))
        except LaminaError as error:
            left_out = str(error)
    at = Exported.at(out, fused is not None, step)
    crop_share, reading = data.eval_crop_share, reading_facts(data)
    files = replace(at, left_out=left_out, norm_eps=other_epsilon(encoder), reading=reading)
    about = {
        "format": FORMAT,
        "step": step,
        "crop_share": crop_share,
        "reading": reading,
        # What loads these weights is a plain network: its shortcuts are whole.
        "encoder": to_mapping(replace(encoder, residual_decay=None)),
        "folded_residual_decay": method.encoder.residual_decay,
        "fusion": to_mapping(fusion) if fusion is not None and fused is not None else None,
        "fusion_left_out": left_out,
    }
    built, pool = as_built(encoder, method.encoder), method.encoder.vit.global_pool
    arguments = {**timm_arguments(built), "global_pool": pool}
    config = {**timm_config(built, method.encoder, arguments, crop_share, pool=pool), KEY: about}
    header = {KEY: json.dumps(config, indent=2)}
    if files.fusion is not None and fused is not None:
        save_tensors(fused.state_dict(), files.fusion, header)
    save_tensors(method.encoder.timm_state(), files.weights, header)
    write_config(files.config, config)
    return files


def write_config(file: Path, content: Mapping[str, Any]) -> None:
    """Write what timm needs beside weights. A config.json is laid out as on the Hugging Face hub, with the
    number of classes at the top alone: transformers' `AutoModel` passes it on by itself."""
    arguments = content.get("model_args")
    if file.name == "config.json" and isinstance(arguments, Mapping):
        arguments = {name: value for name, value in arguments.items() if name != "num_classes"}
        content = {**content, "model_args": arguments}
    write_json(file, content, indent=2)
