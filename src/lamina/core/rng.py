"""Counter-based random numbers: a draw is a function of (seed, epoch, sample, purpose) and nothing else.

No generator is advanced, so the number of workers, of ranks, or a resume at any step cannot change a
draw. Everything is int64 arithmetic that wraps around (the finaliser of splitmix64, Steele et al. 2014),
so CPU and GPU agree bit for bit; logical shifts are arithmetic shifts with the copied sign masked off.

The draws are operators of their own to torch (`torch.library`): inside `torch.compile` they are
called as they stand and never compiled. Compiled, a product of `arange` is index arithmetic: on the CPU it
overflows into other memory, on CUDA it is done in int32 (pytorch #175966, #183901).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MUL_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MUL_2 = 0x94D049BB133111EB - (1 << 64)
_CACHED = 1 << 16
"""How many numbers stay in a processor's cache from one operation to the next."""


class Purpose(IntEnum):
    """What a draw is for: two purposes never share their random numbers."""

    ORDER = 1
    CROP = 2
    FLIP = 3
    MASK = 4
    REPLACEMENT = 5
    DROP_PATH = 6
    INIT = 7
    PREDICT = 8
    VIEW = 9
    AUGMENT = 10
    MIX = 11
    COLOUR = 12
    CORRUPTION = 13
    CAMERA = 14
    BOOTSTRAP = 15
    PATCHES = 16


def _shift(x: Tensor, k: int) -> Tensor:
    return (x >> k) & ((1 << (64 - k)) - 1)


def mix(x: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Scramble each int64 into another one (a bijection; the finaliser of splitmix64)."""
    x = (x ^ _shift(x, 30)) * _MUL_1
    x = (x ^ _shift(x, 27)) * _MUL_2
    return x ^ _shift(x, 31)


def _fold(key: Tensor, word: int | Tensor) -> Tensor:
    return mix((key ^ word) + _GOLDEN)


def sample_keys(seed: int, epoch: int | Tensor, sample: Int64[Tensor, "B"]) -> Int64[Tensor, "B"]:
    """One key for each (seed, epoch, sample); every random choice for that sample starts from it."""
    return _fold(_fold(_fold(torch.zeros_like(sample), seed), epoch), sample)


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Within it torch's generator of the CPU starts from `seed`; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device, and is slow
        yield


def fresh_keys(n: int, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Keys from torch's own generator, for callers that do not count samples."""
    return torch.randint(1 << 62, (n,), device=device)


torch.library.define("lamina::bits", "(Tensor keys, SymInt n, int purpose) -> Tensor")


@torch.library.impl("lamina::bits", "default")
def _bits(keys: Tensor, n: int, purpose: int) -> Tensor:
    counter = torch.arange(n, device=keys.device)
    stream = _fold(keys, purpose)[:, None]
    return mix(stream + (counter + 1) * _GOLDEN) & ((1 << 63) - 1)


@torch.library.register_fake("lamina::bits")  # type: ignore[untyped-decorator]
def _bits_shape(keys: Tensor, n: int, purpose: int) -> Tensor:
    return keys.new_empty(len(keys), n)


def bits(keys: Int64[Tensor, "B"], n: int, purpose: Purpose) -> Int64[Tensor, "B n"]:
    """`n` independent integers in [0, 2**63) for each key."""
    drawn: Tensor = torch.ops.lamina.bits(keys, n, int(purpose))
    return drawn


def uniform(keys: Int64[Tensor, "B"], n: int, purpose: Purpose) -> Float64[Tensor, "B n"]:
    """`n` independent float64 in [0, 1) for each key, with 53 random bits."""
    return _shift(bits(keys, n, purpose), 10).double() * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> Int64[Tensor, "n"]:
    """The order of `n` samples in one epoch; ties (never seen) are broken by index."""
    keys = torch.empty(n, dtype=torch.int64)
    for start in range(0, n, _CACHED):
        samples = torch.arange(start, min(start + _CACHED, n))
        keys[start : start + _CACHED] = bits(sample_keys(seed, epoch, samples), 1, Purpose.ORDER)[:, 0]
    ordered, order = keys.sort()  # several times faster than where ties have to keep their order
    return keys.argsort(stable=True) if (ordered[1:] == ordered[:-1]).any() else order


def seed_for(seed: int, *words: int) -> int:
    """A seed in [0, 2**63) for torch's own generators, from a seed and any number of counters."""
    key = torch.zeros(1, dtype=torch.int64)
    for word in (seed, *words):
        key = _fold(key, word)
    return int(key.item()) & ((1 << 63) - 1)
