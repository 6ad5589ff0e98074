"""Features of a frozen Vision Transformer as the target (EVA, MILAN)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Shaped
from timm.layers.attention import Attention
from timm.models.beit import Beit
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import Frozen, WeightsId, identify
from lamina.core.text import counted

TeacherVit = VisionTransformer | Eva | Beit


class Teacher(nn.Module):
    """What a frozen network makes of each patch: its last block's output after the final norm.

    EVA (Fang et al., arXiv 2211.07636) and MILAN (Hou et al., arXiv 2208.06049) predict features of CLIP's
    image tower; MILAN also chooses what to hide by the attention that the class token of the last block pays
    to the patches, mean over heads. The teacher sees whole images.

    Args:
        vit: a timm VisionTransformer or Eva with weights; it is frozen in place and stays out of the state.
        mean, std: channel statistics on [0, 1] that the teacher was trained with.
        grid: rows and columns of the student's patches; features on another grid are interpolated (bilinear).
        image_size: height and width in px at which the teacher reads; None: its own. Images of another size
            are resized (bicubic, antialiased).
        projected: apply the teacher's head to each patch: CLIP's projection, 512 wide for ViT-B/16, when timm
            has it as `head` (`num_classes=512`).
        scores: also give the class token's attention.
        dtype: precision of the teacher (autocast; float32 turns autocast off); None: as around it.
        identity: name and hash; None takes the class's name and the hash of the weights.

    Raises:
        LaminaError: for a network that has not what is asked for, and images of other channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vit: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        grid: tuple[int, int],
        image_size: tuple[int, int] | None = None,
        projected: bool = False,
        scores: bool = False,
        dtype: torch.dtype | None = None,
        identity: WeightsId | None = None,
    ) -> None:
        super().__init__()
        _check(vit, projected, scores)
        assert isinstance(vit, VisionTransformer | Eva | Beit)
        self.teacher = Frozen(vit)
        self.identity = identity or identify(type(vit).__name__, vit)
        self.grid, self.projected, self.scores, self.dtype = grid, projected, scores, dtype
        self.image_size = _size(vit, image_size)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def vit(self) -> TeacherVit:
        """The network."""
        return self.teacher.net  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """K, features of a patch."""
        vit: Any = self.vit
        return int(vit.head.out_features if self.projected else vit.embed_dim)

    def forward(
        self, images: Shaped[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N"] | None]:
        """Features of every patch in float32 and, where asked for, scores that sum to 1."""
        # Not inference mode: its tensors cannot be saved for the backward of the loss.
        with torch.no_grad(), self._precision(images.device):
            tokens, scores = self._tokens(self._prepare(images))
        patches = self._on_grid(tokens[:, self.vit.num_prefix_tokens :].float())
        if scores is None:
            return patches, None
        on_grid = self._on_grid(scores[..., None].float())[..., 0]
        return patches, on_grid / on_grid.sum(1, keepdim=True)

    def after_step(self, step: int) -> None:
        """Nothing moves: the teacher is frozen."""

    def _precision(self, device: torch.device) -> AbstractContextManager[None]:
        if self.dtype is None:
            return nullcontext()
        enabled = self.dtype != torch.float32
        return torch.autocast(device.type, self.dtype if enabled else None, enabled)

    def _prepare(self, images: Tensor) -> Tensor:
        if images.shape[1] != len(self.mean):
            raise LaminaError(
                f"the teacher reads {counted(len(self.mean), 'channel')}, the images have "
                f"{images.shape[1]}; choose another teacher or images"
            )
        images = unit_float(images)
        if images.shape[-2:] != self.image_size:
            resized = F.interpolate(images.float(), self.image_size, mode="bicubic", antialias=True)
            images = resized.clamp(0, 1)  # bicubic overshoots at edges
        return (images - self.mean) / self.std

    def _tokens(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, P + n, K) and, where asked for, (B, n)."""
        vit = self.vit
        tokens, scores = self._attended(images) if self.scores else (vit.forward_features(images), None)
        tokens = vit.fc_norm(tokens)  # the final norm of networks that average patches; else the identity
        return (vit.head(tokens) if self.projected else tokens), scores

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not say what it gives
    def _attended(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, and the class token's attention to patches in the last block from its queries and keys."""
        seen: list[Tensor] = []
        attention: Any = self.vit.blocks[-1].attn
        hooks = [
            norm.register_forward_hook(lambda *call: seen.append(call[-1]))
            for norm in (attention.q_norm, attention.k_norm)
        ]
        try:
            tokens = self.vit.forward_features(images)
        finally:
            for hook in hooks:
                hook.remove()
        queries, keys = (part.float() for part in seen)  # (B, heads, P + n, d)
        logits = (queries[:, :, :1] * attention.scale) @ keys.transpose(-2, -1)
        weights = logits.softmax(-1).mean(1)[:, 0]  # (B, P + n)
        return tokens, weights[:, self.vit.num_prefix_tokens :]

    def _on_grid(self, patches: Float[Tensor, "B n K"]) -> Float[Tensor, "B N K"]:
        """Values on the teacher's patches as values on the student's."""
        patch = self.vit.patch_embed.patch_size
        own = (self.image_size[0] // patch[0], self.image_size[1] // patch[1])
        if own == self.grid:
            return patches
        tiles = patches.transpose(1, 2).reshape(len(patches), -1, *own)
        # Antialiased, so that a coarser grid averages what it covers; a finer one is plain bilinear.
        return F.interpolate(tiles, self.grid, mode="bilinear", antialias=True).flatten(2).transpose(1, 2)


def _check(vit: Any, projected: bool, scores: bool) -> None:
    if not isinstance(vit, (VisionTransformer, Eva, Beit)):
        raise LaminaError(
            f"a {type(vit).__name__} cannot be a teacher; give a timm VisionTransformer, Eva or Beit, such "
            "as vit_base_patch16_clip_224"
        )
    if projected and (getattr(vit, "attn_pool", None) is not None or not isinstance(vit.head, nn.Linear)):
        raise LaminaError(
            "the teacher has no projection of single patches; build a CLIP tower with num_classes=512, or "
            "leave projected off"
        )
    if not scores:
        return
    if vit.cls_token is None:
        raise LaminaError("scores are a class token's attention and the teacher has none; choose a CLIP ViT")
    attention = vit.blocks[-1].attn
    if getattr(vit, "rope", None) is not None or not isinstance(attention, Attention | EvaAttention):
        raise LaminaError(
            "scores need plain attention without rotary positions in the teacher's last block; choose a CLIP "
            "ViT"
        )


def _size(vit: TeacherVit, wanted: tuple[int, int] | None) -> tuple[int, int]:
    embed = vit.patch_embed
    if wanted is None:
        if embed.img_size is None:
            raise LaminaError("the teacher has no image size of its own; give image_size")
        return (int(embed.img_size[0]), int(embed.img_size[1]))
    dynamic = getattr(vit, "dynamic_img_size", False)
    if embed.img_size is not None and wanted != tuple(embed.img_size) and not dynamic:
        raise LaminaError(
            f"the teacher reads {embed.img_size[0]} x {embed.img_size[1]} px; leave image_size open, or "
            "build it with dynamic_img_size=True"
        )
    if wanted[0] % embed.patch_size[0] or wanted[1] % embed.patch_size[1]:
        raise LaminaError(
            f"image_size {wanted[0]} x {wanted[1]} px is not a multiple of the teacher's patch, "
            f"{embed.patch_size[0]} px"
        )
    return wanted
