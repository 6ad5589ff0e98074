"""A small CMAE and batches for it."""

import torch

from lamina.cmae.cmae import CMAE
from lamina.cmae.options import CMAEOptions
from lamina.core.batch import Batch
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.methods import mae

WIDTH, DEPTH, GRID = 24, 3, (4, 4)


SMALL = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


OPTIONS = CMAEOptions(hidden=20, out=12, decoder_depth=2)


def vit():
    sizes = {"image_size": (16, 16), "patch_size": 4, "width": WIDTH, "depth": DEPTH, "heads": 2}
    return build_vit(EncoderOptions(**sizes))


def task_of(fusion=None, options=OPTIONS):
    torch.manual_seed(0)
    task = CMAE(mae(vit(), fusion, 0.65, **SMALL), options, 16, 2)
    for parameter in task.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return task.double().train()


def batch_of(n=4):
    torch.manual_seed(1)
    images, view = torch.rand(2, n, 3, 16, 16, dtype=torch.float64)
    return Batch(images, sample_keys(2, 0, torch.arange(n)), view=view)
