"""The place of a target whose teacher or tokenizer is not loaded: a run's encoder needs none."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.patches import grid_of


class MissingTarget(nn.Module):
    """Has the width of the target, so that a decoder can be built for it, and no network to compute it.

    On the meta device, where tensors have shapes and no content, it returns such tensors.

    Args:
        kind: "tokens" are whole numbers, "teacher" features.
        width: K.
        patch: height and width of a patch in px.
        name: the network that would be needed.
    """

    def __init__(
        self, kind: Literal["tokens", "teacher"], width: int, patch: tuple[int, int], name: str
    ) -> None:
        super().__init__()
        self.kind, self.width, self.patch, self.name = kind, width, patch, name

    def forward(
        self, images: Shaped[Tensor, "B C H W"]
    ) -> tuple[Shaped[Tensor, "B N *K"], Float[Tensor, "B N"] | None]:
        """Shapes on the meta device; elsewhere it raises."""
        if images.device.type != "meta":
            raise LaminaError(
                f"the loss and the masks of this run need {self.name}, which is not loaded here; use the "
                "encoder alone (load_encoder)"
            )
        rows, columns = grid_of(images, self.patch)
        n = rows * columns
        scores = torch.empty(len(images), n, device="meta")
        if self.kind == "tokens":
            return scores.long(), None
        return torch.empty(len(images), n, self.width, device="meta"), scores

    def after_step(self, step: int) -> None:
        """Nothing changes after a step."""
