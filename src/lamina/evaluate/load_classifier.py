"""From what a model is called to a classifier: one that was trained on labels, or a linear probe on an
encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.frozen import network_sha256
from lamina.data.loading.dataset import Change
from lamina.data.options import DataOptions
from lamina.data.sources import Source
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.predictions import Logits, Predictions, classify
from lamina.evaluate.robustness.imagenet_variants import imagenet_wnids
from lamina.evaluate.several import SeveralPredictions, score_several
from lamina.features.extract import pooled_features
from lamina.features.linear import fit_linear
from lamina.features.options import ComputeOptions, LinearOptions
from lamina.interop.backbone import Pool
from lamina.interop.export_classifier import class_names, load_supervised, reading_of
from lamina.interop.load import load_encoder
from lamina.interop.timm_models import fetch_published
from lamina.runs.model_spec import TIMM, locate_step, parse_model
from lamina.runs.run import load_task
from lamina.supervised.classifier import Supervised
from lamina.supervised.normalized import Standardised
from lamina.train.distributed import choose_device


@dataclass(frozen=True)
class Classifier:
    """Logits of images, the classes that they count, and how images are read for it."""

    name: str
    step: int | None
    kind: str
    """A few words on the kind of classifier, for tables."""
    logits: Logits
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    in_chans: int
    reading: DataOptions
    sha256: str
    """Digest of weights and structure (`network_sha256`); for a probe that of its encoder."""
    n_train: int = 0
    """Images that the probe was fitted on; 0 where the classifier came trained."""
    notes: tuple[str, ...] = ()
    """Notes on how the probe was fitted."""
    several: bool = False
    """Whether it gives an image any number of the classes."""

    def predict(
        self,
        source: Source,
        compute: ComputeOptions,
        subset: tuple[int, ...] | None = None,
        change: Change | None = None,
    ) -> Predictions:
        """`classify` with this classifier; raises for one that gives an image several classes."""
        if self.several:
            raise LaminaError(
                f"{self.name} gives each image any number of labels, and this evaluation takes one class "
                "each; give a classifier that was trained on one column of classes"
            )
        size, channels = self.image_size, self.in_chans
        return classify(self.logits, source, size, channels, self.reading, compute, subset, change)

    def score_several(self, source: Source, compute: ComputeOptions) -> SeveralPredictions:
        """`several.score_several` with this classifier."""
        size, channels = self.image_size, self.in_chans
        return score_several(self.logits, source, size, channels, self.reading, compute)

    def answers(self, source: Source, compute: ComputeOptions) -> Predictions | SeveralPredictions:
        """`score_several` where it gives an image several classes, else `predict`."""
        return (self.score_several if self.several else self.predict)(source, compute)


def open_classifier(
    model: str | Path,
    train: Source | None = None,
    compute: ComputeOptions | None = None,
    seed: int = 0,
    pool: Pool = "mean",
    encoder: str | EncoderOptions | None = None,
) -> Classifier:
    """The classifier that `model` names: a run on labels (fine-tuned), an exported classifier, a timm name
    with its published ImageNet head (timm/NAME); of any other encoder a linear probe, fitted on `train`.

    The probe reads the mean of the last layer's patches, or its class token, as `pool` says. `encoder` names
    the network of a weights file that does not say it, or gives its options.

    Raises:
        LaminaError: where nothing is called so, or an encoder comes without labelled training images.
    """
    compute, spec = compute or ComputeOptions(), str(model)
    device = choose_device(compute.device)
    trained = _trained(spec, device)
    if trained is not None:
        return trained
    if spec.startswith(TIMM) and train is None:
        return _of_timm(spec, device)
    return _probe(spec, train, compute, seed, pool, encoder)


def _trained(spec: str, device: torch.device) -> Classifier | None:
    """The classifier of a run on labels, or of an export; None for anything else."""
    if parse_model(spec).run is not None:
        run, step = locate_step(spec)
        task, recipe = load_task(run, step)
        if not isinstance(task, Supervised):
            return None
        return _of_task(task.to(device), str(run), step, recipe.labels.classes, recipe.data)
    path = Path(spec).expanduser()
    reading = reading_of(path) if path.exists() else None
    if reading is None:
        return None
    return _of_task(load_supervised(path, device), spec, None, class_names(path), reading)


def _of_task(
    task: Supervised, name: str, step: int | None, classes: tuple[str, ...], reading: DataOptions
) -> Classifier:
    return Classifier(
        name,
        step,
        "trained",
        task.logits,
        classes,
        task.encoder.image_size,
        task.encoder.in_chans,
        reading,
        network_sha256(task),
        several=task.several,
    )


def _of_timm(spec: str, device: torch.device) -> Classifier:
    """timm's published classifier: its own normalisation, size and crop."""
    name = spec.removeprefix(TIMM)
    net = fetch_published(name, "a run")
    known: dict[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = known["input_size"]
    logits = Standardised(net, known["mean"], known["std"]).eval().requires_grad_(False).to(device)
    reading = DataOptions(eval_crop_share=float(known["crop_pct"]))
    classes = imagenet_wnids(int(known["num_classes"]))
    sha256 = network_sha256(net)
    return Classifier(spec, None, "published", logits, classes, (height, width), channels, reading, sha256)


def _probe(
    spec: str,
    train: Source | None,
    compute: ComputeOptions,
    seed: int,
    pool: Pool,
    encoder: str | EncoderOptions | None,
) -> Classifier:
    if train is None or train.labels is None:
        raise LaminaError(
            f"{spec} is no classifier, and a probe needs labelled training images; fine-tune it first"
        )
    backbone = load_encoder(spec, encoder=encoder, device=choose_device(compute.device))
    assert backbone.origin is not None
    origin, n = backbone.origin, len(train.class_names)
    features, table = pooled_features(backbone, train, pool, compute)
    probe = fit_linear(features, table.known_labels, LinearOptions(), seed)

    def logits(images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        return probe.logits(backbone.every(images, ("last",))["last"].pooled(pool).float().cpu(), n)

    return Classifier(
        origin.name,
        origin.step,
        f"linear probe, {pool}",
        logits,
        train.class_names,
        backbone.image_size,
        backbone.encoder.in_chans,
        origin.recipe.data,
        network_sha256(backbone),
        len(features),
        probe.notes,
    )
