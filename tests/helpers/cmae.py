"""A small CMAE and batches for it."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

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


def rank_equals_whole() -> None:
    """On each of two ranks: the contrastive loss and the reduced gradients are those of the whole batch."""
    whole = task_of()
    one = whole(batch_of(8))
    one["loss"].backward()
    dist.init_process_group("gloo")
    task = DistributedDataParallel(task_of())
    terms = task(list(batch_of(8).split(4))[dist.get_rank()])
    terms["loss"].backward()
    both = terms["contrast_loss"].clone()
    dist.all_reduce(both)
    torch.testing.assert_close(both / 2, one["contrast_loss"], rtol=1e-5, atol=0)
    for (name, p), q in zip(whole.named_parameters(), task.module.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-8, msg=name)
    dist.destroy_process_group()
