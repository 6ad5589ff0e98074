"""Tensors of which each rank holds a share (torch's DTensor), from whole ones and back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lamina.train.distributed import Ranks


def own_share(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of one that is not cut."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share_like(own: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor, which every rank has, cut as `own` is; nothing is exchanged."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def together(tensor: Tensor) -> Tensor:
    """A tensor put together of the shares of all ranks, which all call this; itself where it is not cut."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def on_host(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Whole tensors in host memory on rank 0, gathered one by one; none on others. All call this."""
    found = {}
    for name, tensor in tensors.items():
        whole = together(tensor.detach())
        if ranks.main:
            found[name] = whole.cpu()
    return found
