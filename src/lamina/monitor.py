"""What a run says about its fusion: each tap's weight and share, at every row of metrics.jsonl."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lamina.batch import Batch
from lamina.fusion import MultiLevelFusion
from lamina.mim import MIM
from lamina.train import Callback

MOST_IMAGES = 16


class FusionMonitor(Callback):
    """Adds `fusion_weights` and `fusion_shares`, a number for each tap, measured on images of the last batch.

    It runs the encoder once more on at most 16 images per row, so that the step itself carries nothing.
    """

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """The two lists, shallowest tap first; nothing for a method without fusion."""
        if not isinstance(task, MIM) or not isinstance(task.fusion, MultiLevelFusion):
            return None
        was_training = task.training
        task.eval()
        with torch.no_grad():
            features = task.features(next(batch.split(MOST_IMAGES)))
            measured = task.fusion.measure(features)
        task.train(was_training)
        return {name: values.tolist() for name, values in measured.items()}
