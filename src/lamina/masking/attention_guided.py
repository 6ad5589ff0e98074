"""What a teacher attends to stays visible, by lot."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, bits
from lamina.masking.counts import Grid, check_ratio, hide_largest, whole_visible


class AttentionGuidedMasking:
    """Visible patches are drawn without replacement, each with a probability in proportion to its score
    (MILAN's semantic aware masking, arXiv 2208.06049: scores are a teacher's class attention).

    Drawn as the top of log score + Gumbel noise (Vieira 2014; Kool et al., arXiv 1903.06059), which is the
    same distribution as drawing one after the other. The visible count is int(N * (1 - mask_ratio)).
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        check_ratio(mask_ratio)
        self.mask_ratio = mask_ratio

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where none, or all, would be."""
        return whole_visible(self.mask_ratio, grid)

    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of keys and scores, on the scores' device.

        Scores are not negative and need not sum to one; patches of score zero are taken last, uniformly.

        Raises:
            LaminaError: without scores, or for scores of another grid.
        """
        n = grid[0] * grid[1]
        if scores is None:
            raise LaminaError(
                "masking 'scored' needs a target that scores patches, such as a teacher's attention; choose "
                "such a target or masking.kind random"
            )
        if scores.shape[1] != n:
            raise LaminaError(
                f"{scores.shape[1]} scores do not fit {grid[0]} x {grid[1]} patches; give the teacher an "
                "image size and patch that make the same grid"
            )
        lots = bits(keys.to(scores.device), n, Purpose.MASK)
        return hide_largest(_log_race(lots) - _log(scores), n - self.n_visible(grid))


def _log_race(lots: Int64[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """log of an exponential number for each integer in [0, 2**63): minus a Gumbel one.

    float64 with 53 random bits, or float32 with 24 where a device has no float64 (MPS).
    """
    narrow = lots.device.type == "mps"
    uniform = (lots >> 39).float() * 2.0**-24 if narrow else (lots >> 10).double() * 2.0**-53
    return (-torch.log1p(-uniform)).log()


def _log(scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    scores = scores.float() if scores.device.type == "mps" else scores.double()
    # The logarithm of zero would make ties; that of the least number makes them last, in random order.
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
