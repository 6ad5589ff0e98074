"""The weights of a fusion and what each layer contributes, logged while a run trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from lamina.core.batch import Batch
from lamina.core.frozen import eval_mode
from lamina.fusion.mff import MOST_IMAGES, MultiLevelFusion
from lamina.mim import mim_of
from lamina.supervised.classifier import Supervised
from lamina.train.callbacks import Callback


class FusionMonitor(Callback):
    """Adds `fusion_weights` and `fusion_shares`, a number for each tap, measured on images of the last batch.

    It runs the encoder once more on at most 16 images per row, so that the step itself carries nothing.
    """

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """The two lists, shallowest tap first; nothing for a method without fusion."""
        watched = task if isinstance(task, Supervised) else mim_of(task)
        if watched is None or not isinstance(watched.fusion, MultiLevelFusion):
            return None
        with eval_mode(task):
            features = watched.features(next(batch.split(MOST_IMAGES)))
            if isinstance(watched, Supervised):  # what no head reads is not fused
                features = watched.read(features)
            measured = watched.fusion.measure(features)
        return {name: values.tolist() for name, values in measured.items()}
