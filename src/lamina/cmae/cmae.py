"""CMAE: Huang et al., "Contrastive Masked Autoencoders are Stronger Vision Learners", arXiv 2207.13532."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from lamina.cmae.options import CMAEOptions
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.moving_average import follow
from lamina.core.patches import split_indices, take
from lamina.decoder.tokens import TokenDecoder
from lamina.encoder.encoder import Encoder
from lamina.fusion.build import Fusion
from lamina.mim import MIM


class FeatureDecoder(TokenDecoder):
    """From the visible tokens and mask tokens to features of all patches."""

    def forward(self, latent: Float[Tensor, "B T D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N K"]:
        """Features of all patches, the visible ones first: their mean is taken, which knows no order."""
        p = self.n_prefix
        visible, hidden = split_indices(mask, latent.shape[1] - p)
        x = torch.cat([self.seen(latent, visible), F.embedding(hidden, self.blank())], dim=1)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x[:, p:]))
        return result


class CMAE(nn.Module):
    """A masked image model, and a second decoder whose mean feature is to be told apart from those of other
    images by a slowly moving copy of the encoder that sees a second view whole.

    q = predictor(projector(mean of the feature decoder's patches)); k = projector'(mean of encoder'(view)'s
    patches, without the final norm); both of length one. With the keys of all ranks' images

        loss = pixel loss + weight * 2 T * cross-entropy(q k / T, own image)    (equations 5 to 8)

    Both decoders read the same latents, so that a fusion is on the online encoder and before both. Projector
    and predictor have a LayerNorm where the paper's have a BatchNorm: statistics of a batch would differ with
    the number of ranks and micro-batches. Negatives are those of the micro-batch, of all ranks.

    Args:
        mim: the pixel branch; any encoder that drops hidden patches, any fusion of one latent.
        options: sizes, temperature, momentum.
        decoder_width, decoder_heads: of the feature decoder.
    """

    def __init__(
        self,
        mim: MIM,
        options: CMAEOptions | None = None,
        decoder_width: int = 512,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        options = options or CMAEOptions()
        encoder = mim.encoder
        if encoder.hide != "drop" or mim.fusion.n_latents != 1:
            raise LaminaError(
                "CMAE's decoders read one latent of the visible patches; use hide='drop' and --fusion mff or "
                "none"
            )
        self.mim, self.options = mim, options
        self.feature_decoder = FeatureDecoder(
            encoder.width,
            encoder.width,
            encoder.grid,
            encoder.n_prefix,
            decoder_width,
            options.decoder_depth,
            decoder_heads,
        )
        self.projector = _mlp(encoder.width, options)
        self.predictor = _mlp(options.out, options)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    @property
    def encoder(self) -> Encoder:
        """The online encoder, which a run hands over."""
        return self.mim.encoder

    @property
    def fusion(self) -> Fusion:
        """On the online encoder."""
        return self.mim.fusion

    def restart_target(self) -> None:
        """Make the targets equal to what they follow: after weights were loaded into the encoder."""
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        self.target_projector.load_state_dict(self.projector.state_dict())

    def train(self, mode: bool = True) -> CMAE:
        """The target has no stochastic depth, whatever the mode."""
        super().train(mode)
        self.target_encoder.eval()
        return self

    def forward(self, batch: Batch | Shaped[Tensor, "B C H W"]) -> dict[str, Tensor]:
        """{"loss", "pixel_loss", "contrast_loss"}; the batch brings a second view of each image."""
        if not isinstance(batch, Batch) or batch.view is None:
            raise LaminaError("CMAE needs a second view of each image; set data.second_view to cmae")
        mim = self.mim
        mim.encoder.grid_of(batch.images)
        target, scores = mim.target(batch.images)
        mask = mim.mask(batch, scores)
        latent = mim.fusion(mim.encode(batch.images, mask), mim.encoder.norm)
        assert isinstance(latent, Tensor)
        values, where = mim.decoder(latent, mask, batch.keys)
        pixels = mim.loss(values, take(target, where)).mean()
        contrast = self.contrast(self.query(latent, mask), self.key(batch.view))
        return {
            "loss": pixels + self.options.weight * contrast,
            "pixel_loss": pixels.detach(),
            "contrast_loss": contrast.detach(),
        }

    def query(self, latent: Float[Tensor, "B T D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B d"]:
        """What the online branch says of each image, of length one."""
        mean = self.feature_decoder(latent, mask).mean(1)
        return F.normalize(self.predictor(self.projector(mean)).float(), dim=-1)

    @torch.no_grad()
    def key(self, view: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B d"]:
        """What the target says of each second view, of length one."""
        (last,) = self.target_encoder(view, (self.encoder.depth - 1,))
        mean = last[:, self.encoder.n_prefix :].mean(1)
        return F.normalize(self.target_projector(mean).float(), dim=-1)

    def contrast(self, queries: Float[Tensor, "B d"], keys: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
        """2 T times the InfoNCE loss of this rank's queries among the keys of all ranks."""
        t, rank = self.options.temperature, 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # Keys carry no gradient: each rank's loss has that of its own queries, and DDP takes the mean.
            everyone = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
            dist.all_gather(everyone, keys.contiguous())
            keys, rank = torch.cat(everyone), dist.get_rank()
        own = torch.arange(len(queries), device=queries.device) + rank * len(queries)
        return 2 * t * F.cross_entropy(queries @ keys.T / t, own)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the targets a little: target = momentum * target + (1 - momentum) * online."""
        self.mim.after_step(step)
        for target, online in (
            (self.target_encoder, self.encoder),
            (self.target_projector, self.projector),
        ):
            follow(target.parameters(), online.parameters(), 1 - self.options.momentum)


def _mlp(n_in: int, options: CMAEOptions) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, options.hidden, bias=False),
        nn.LayerNorm(options.hidden),
        nn.ReLU(),
        nn.Linear(options.hidden, options.out, bias=False),
    )
