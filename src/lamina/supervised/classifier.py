"""The forward of supervised training: encode the whole image, fuse, pool, one matrix, cross-entropy."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from lamina.core.batch import Batch, images_of, unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import Frozen, WeightsId, identify
from lamina.core.moving_average import follow
from lamina.core.rng import fresh_keys
from lamina.encoder.encoder import Encoder
from lamina.encoder.networks import layer_ids
from lamina.fusion.build import Fusion, check_fusion
from lamina.supervised.labels import MISSING, check_range, valid
from lamina.supervised.mixup import draw, mix_images, mix_labels, mix_several, placed
from lamina.supervised.options import Neck, SupervisedOptions
from lamina.supervised.pooling import AttentivePool, MeanPool


class Supervised(nn.Module):
    """DeiT: Touvron et al., "Training data-efficient image transformers & distillation through attention",
    ICML 2021, arXiv 2012.12877; with any fusion between the last block and the head.

    In training mode images and labels of each (micro-)batch are mixed, by the key of its first image; in
    evaluation mode nothing is mixed or smoothed, and the share of right answers is returned too.

    A teacher gives hard distillation (section 3 of the paper): its most probable class of each mixed image is
    the label of a second head on the distillation token, loss = (CE + CE_teacher) / 2. What the network says
    is the mean of both heads' logits; a distilled network without a teacher is trained on that mean, as timm
    does. (The paper adds softmax outputs at inference; its code, and timm, take the mean of logits.)

    Args:
        encoder: any `Encoder` that hides nothing (hide "drop").
        fusion: one latent; `LastLayer` for the plain network.
        n_classes: how many classes the labels name, counted from 0.
        options: pooling and mixing.
        teacher: images (float on [0, 1], mixed; it owns its normalisation, see `Standardised`) to logits of
            the same classes; it is frozen and stays out of every state.
        teacher_identity: name and hash; None takes the class's name and the hash of the weights.
        several: whether an image has any number of the classes (`Batch.multi_labels`). The loss is the binary
            cross-entropy, the mean over images and classes, and mixing and smoothing are those of
            `mixup.mix_several`.

    Raises:
        LaminaError: for parts that do not fit each other.
    """

    several = False

    def __init__(
        self,
        encoder: Encoder,
        fusion: Fusion,
        n_classes: int,
        options: SupervisedOptions | None = None,
        teacher: nn.Module | None = None,
        teacher_identity: WeightsId | None = None,
        *,
        several: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = fusion
        self.n_classes = n_classes
        if several:  # else the network has the attributes, and so the hash, that it always had
            self.several = True
        self.options = options or SupervisedOptions()
        self.pool = self.options.pool or ("cls" if encoder.n_class else "mean")
        self.distilled = getattr(encoder.vit, "dist_token", None) is not None
        self._check(teacher)
        attentive = self.pool == "attentive"
        self.pooling = AttentivePool(encoder.width, _heads(encoder)) if attentive else MeanPool()
        self.neck = _neck(self.options.neck, encoder)
        self.head = _head(encoder.width, n_classes, self.options.head_std)
        self.head_dist = _head(encoder.width, n_classes, self.options.head_std) if self.distilled else None
        self.teacher = None if teacher is None else Frozen(teacher)
        self.teacher_identity = teacher_identity
        if teacher is not None and teacher_identity is None:
            self.teacher_identity = identify(type(teacher).__name__, teacher)
        if not fusion.uses_norm or self.options.neck == "layer":  # it would wait for a gradient in vain
            encoder.norm.requires_grad_(False)
        if self.options.frozen:
            encoder.requires_grad_(False)
        self.average: Supervised | None = None
        self.restart_average()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch with labels, and top1 where its images are not mixed; with a teacher both
        terms of the loss too.

        Raises:
            LaminaError: for labels that are missing, or, on the CPU, that are no class. Elsewhere such a
                label makes the loss NaN, and nothing waits for it: see `check_labels`.
        """
        if self.average is not None and not self.training:
            return self.average(batch)  # type: ignore[no-any-return]
        self.encoder.grid_of(images_of(batch))
        if self.several:
            images, targets = self.mix(batch, self._several_labels(batch))
            logits = _mean(self._outputs(images))
            return {"loss": F.binary_cross_entropy_with_logits(logits, targets)}
        labels = self._labels(batch)
        sound = valid(labels, self.n_classes)
        labels = labels.clamp(0, self.n_classes - 1)
        images, targets = self.mix(batch, labels)
        outputs = self._outputs(images)
        if self.teacher is None or not self.training:
            logits = _mean(outputs)
            terms = {"loss": F.cross_entropy(logits, targets)}
        else:
            terms = self._distil(images, outputs, targets)
            logits = outputs[0]
        terms["loss"] = terms["loss"].where(sound, torch.nan)
        if not (self.training and self.options.mixes):
            terms["top1"] = (logits.argmax(1) == labels).float().mean()
        return terms

    def logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of images (uint8, or float on [0, 1]) in float32: the mean of both heads; in evaluation mode
        those of the slow copy, where there is one."""
        if self.average is not None and not self.training:
            return self.average.logits(images)
        return _mean(self._outputs(images))

    def features(self, batch: Batch | Shaped[Tensor, "B C H W"]) -> list[Float[Tensor, "B T D"]]:
        """The un-normed block outputs that the fusion reads, of the whole images, not mixed."""
        images = batch.images if isinstance(batch, Batch) else batch
        with torch.no_grad() if self.options.frozen else nullcontext():
            return self.encoder(images, self.fusion.layers)  # type: ignore[no-any-return]

    def mix(
        self, batch: Batch, labels: Shaped[Tensor, "B *classes"]
    ) -> tuple[Shaped[Tensor, "B C H W"], Float[Tensor, "B classes"]]:
        """Images and the classes' shares to learn from them: mixed and smoothed in training mode."""
        images, options = batch.images, self.options
        shares = mix_several if self.several else partial(mix_labels, n_classes=self.n_classes)
        if not self.training:
            return images, shares(labels, share=1.0, smoothing=0.0)
        if not options.mixes:
            return images, shares(labels, share=1.0, smoothing=options.smoothing)
        key = fresh_keys(1, images.device) if batch.keys is None else batch.keys[:1]
        if key.device.type == "mps":  # which has no float64
            key = key.cpu()
        mix = placed(draw(key, options), (images.shape[-2], images.shape[-1]), options)
        share = mix.share.to(images.device)
        targets = shares(labels, share=share, smoothing=options.smoothing)
        return mix_images(unit_float(images), mix), targets

    def train(self, mode: bool = True) -> Supervised:
        """A frozen encoder, and the slow copy, stay in evaluation mode."""
        super().train(mode)
        if self.options.frozen:
            self.encoder.eval()
        if self.average is not None:
            self.average.eval()
        return self

    def restart_average(self) -> None:
        """The slow copy, where there is to be one, starts anew from the weights of now."""
        if self.options.ema:
            self.average = None
            twin = copy.deepcopy(self)
            twin.teacher = None
            self.average = twin.requires_grad_(False).eval()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """The slow copy follows; at first faster, as timm's `ModelEmaV3` warms up: (1 + step) / (10 +
        step)."""
        if self.average is None:
            return
        share = min(self.options.ema, (1 + step) / (10 + step))
        own, slow = self.state_dict(), self.average.state_dict()
        moving = [name for name, tensor in slow.items() if tensor.is_floating_point()]
        follow((slow[n] for n in moving), (own[n].to(slow[n].dtype) for n in moving), 1 - share)
        for name in slow.keys() - set(moving):
            slow[name].copy_(own[name])

    def layer_ids(self) -> dict[str, int]:
        """Each trained parameter's layer for layer decay."""
        return layer_ids(self, self.encoder.depth)

    def read(self, features: list[Float[Tensor, "B T D"]]) -> list[Float[Tensor, "B t D"]]:
        """The tokens of each tap that a head reads: class and distillation tokens, or the patches.

        Fusion and norm are token by token, so the others need none.
        """
        n = 2 if self.distilled else self.encoder.n_class
        part = slice(n) if self.pool == "cls" else slice(self.encoder.n_prefix, None)
        return [tap[:, part] for tap in features]

    def _outputs(self, images: Tensor) -> list[Float[Tensor, "B classes"]]:
        """Logits of each head."""
        norm = nn.Identity() if self.options.neck == "layer" else self.encoder.norm
        tokens = self.fusion(self.read(self.features(images)), norm)
        if self.head_dist is not None:
            return [self.head(tokens[:, 0]).float(), self.head_dist(tokens[:, 1]).float()]
        return [self.head(self.neck(self.pooling(tokens))).float()]

    def _distil(self, images: Tensor, outputs: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Equation 3 of the paper, on one head each."""
        assert self.teacher is not None
        with torch.no_grad():
            by_class = self.teacher.net(unit_float(images))
        if by_class.shape != outputs[1].shape:
            raise LaminaError(
                f"the teacher gives logits {tuple(by_class.shape)}, the head {tuple(outputs[1].shape)}; "
                "take a teacher of the same classes"
            )
        by_labels = F.cross_entropy(outputs[0], targets)
        by_teacher = F.cross_entropy(outputs[1], by_class.argmax(1))
        loss = (by_labels + by_teacher) / 2
        return {"loss": loss, "loss_labels": by_labels, "loss_teacher": by_teacher}

    def _labels(self, batch: Batch) -> Int64[Tensor, "B"]:
        if batch.labels is None:
            raise LaminaError(MISSING)
        if batch.labels.device.type == "cpu" and not torch.compiler.is_compiling():
            check_range(batch.labels, self.n_classes)
        return batch.labels

    def _several_labels(self, batch: Batch) -> Bool[Tensor, "B classes"]:
        if batch.multi_labels is None:
            raise LaminaError(MISSING)
        if batch.multi_labels.shape[1] != self.n_classes:
            raise LaminaError(
                f"{batch.multi_labels.shape[1]} labels for {self.n_classes} classes; give one each"
            )
        return batch.multi_labels

    def _check(self, teacher: nn.Module | None) -> None:
        name = type(self.encoder.vit).__name__
        if self.n_classes < 1:
            raise LaminaError(f"n_classes is {self.n_classes}; give how many there are")
        if self.encoder.mask_token is not None:
            raise LaminaError(
                "supervised training hides no patches, so a mask token learns nothing; take "
                "--encoder.hide drop"
            )
        if self.pool == "cls" and not self.encoder.n_class:
            raise LaminaError(f"this {name} has no class token; take pool mean")
        if self.distilled and (self.pool != "cls" or self.options.neck != "none"):
            raise LaminaError(
                f"the heads of a {name} read its class and distillation tokens; take pool cls and neck none, "
                "or a plain ViT"
            )
        if teacher is not None and self.several:
            raise LaminaError(
                "a teacher gives each image one class, and these have any number of labels; leave out the "
                "teacher (labels.teacher)"
            )
        if teacher is not None and not self.distilled:
            raise LaminaError(
                f"this {name} has no distillation token for a teacher; take one that has, such as "
                "deit_tiny_distilled_patch16_224"
            )
        if self.fusion.n_latents != 1:
            raise LaminaError(
                f"a classifier's head reads one latent, {type(self.fusion).__name__} gives "
                f"{self.fusion.n_latents}; take --fusion mff or none"
            )
        check_fusion(self.fusion, self.encoder.width, self.encoder.depth)


def _head(width: int, n_classes: int, std: float) -> nn.Linear:
    """A truncated normal and no bias at first (DeiT's `_init_weights`, MAE's `main_finetune`)."""
    head = nn.Linear(width, n_classes)
    nn.init.trunc_normal_(head.weight, std=std)
    nn.init.zeros_(head.bias)
    return head


def _neck(kind: Neck, encoder: Encoder) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(encoder.width, affine=False, eps=1e-6)
    if kind == "none":
        return nn.Identity()
    norm = copy.deepcopy(encoder.norm)  # of the encoder's kind and epsilon
    for name, parameter in norm.named_parameters():
        nn.init.ones_(parameter) if name.endswith("weight") else nn.init.zeros_(parameter)
    return norm


def _heads(encoder: Encoder) -> int:
    """Those of the encoder's own attention."""
    return int(encoder.vit.blocks[0].attn.num_heads)  # type: ignore[union-attr, arg-type]


def _mean(outputs: list[Tensor]) -> Tensor:
    return outputs[0] if len(outputs) == 1 else (outputs[0] + outputs[1]) / 2
