"""What a run watches leaves the method as it was."""

import torch

from helpers.report_runs import toy_method
from lamina.callbacks.fusion_monitor import FusionMonitor
from lamina.core.batch import Batch


def test_a_look_at_the_fusion_leaves_every_mode_as_it_was():
    method = toy_method().train()
    method.target.eval()
    method.encoder.vit.blocks[0].eval()
    before = {name: part.training for name, part in method.named_modules()}
    row = FusionMonitor().on_log(1, {}, Batch(torch.rand(2, 3, 16, 16)), method)
    assert len(row["fusion_weights"]) == 4
    assert {name: part.training for name, part in method.named_modules()} == before
