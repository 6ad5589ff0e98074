"""How a batch travels from a worker process: in shared memory, or as bytes where that is full.

It is packed in the worker's own thread. torch's DataLoader leaves that to a thread of its queue, where an
error is printed, the batch is lost, and the training process waits for it for ever.
"""

from __future__ import annotations

import io
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError


class Packed(NamedTuple):
    """A batch, or whatever else a reader gives, as bytes for a queue."""

    content: bytes
    full: str = ""
    """Why the tensors are among the bytes and not in shared memory; "" where they are in shared memory."""


def pack(item: Any) -> Packed:
    """For a queue between processes; called in the worker. What has no room in memory at all becomes a
    `LaminaError`."""
    try:
        if isinstance(item, Batch):
            item.each(Tensor.share_memory_)  # all of it, before a descriptor of any is handed out
        return Packed(bytes(ForkingPickler.dumps(item)))
    except (OSError, RuntimeError) as error:  # no room, or no file descriptor left
        return _as_bytes(item, " ".join(str(error).split()))


def unpack(packed: Packed) -> Any:
    """The inverse, in the process that trains."""
    return ForkingPickler.loads(packed.content)


class _ByValue(ForkingPickler):
    """Puts the numbers of a tensor among the bytes, where torch would put them into shared memory."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return torch.from_numpy, (item.numpy(),)
        return NotImplemented


def _as_bytes(item: Any, full: str) -> Packed:
    try:
        stream = io.BytesIO()
        _ByValue(stream).dump(item)
        return Packed(stream.getvalue(), full)
    except MemoryError:
        return pack(LaminaError("a data worker has no memory left for a batch; take fewer (data.workers)"))
