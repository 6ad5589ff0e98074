"""What frozen features cost: neighbours among many of them, and reading and caching beside the bare forward.

    python benchmarks/features.py neighbours
    python benchmarks/features.py caching

Neighbours: 200 of them for each query, chunk by chunk (`lamina.features.nearest`) and the plain way: the
bank normalised as a whole, then as many queries at a time as give 34 million similarities. CPU time of one
thread, the two in turn; what counts is the median over rounds of the ratio within a round (in brackets its
quartiles). Peak memory is the growth of the resident set of a process that holds bank and queries already.

Caching: `collect` over a folder of JPEGs, workers reading, vectors written to an empty cache;
and the same forward on the same batches in memory, in turn; wall-clock time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lamina.data.loading.loader import eval_batches
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.encoder.build import wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.features.extract import collect
from lamina.features.nearest import MOST_CELLS, nearest
from lamina.features.options import ComputeOptions
from lamina.features.pooling import BackboneVectors
from lamina.interop.backbone import Backbone

MOST = 200


def in_chunks(bank: Tensor, queries: Tensor) -> None:
    """Lamina's way."""
    for _ in nearest(bank, queries, MOST, centre=bank[0]):
        pass


def at_once(bank: Tensor, queries: Tensor) -> None:
    """The plain way."""
    unit, asked = F.normalize(bank - bank[0], dim=1), F.normalize(queries - bank[0], dim=1)
    for part in asked.split(max(1, MOST_CELLS // len(bank))):
        (part @ unit.T).topk(MOST, dim=1)


WAYS: dict[str, Callable[[Tensor, Tensor], None]] = {"chunks": in_chunks, "plain": at_once}


def made(n: int, width: int, n_queries: int) -> tuple[Tensor, Tensor]:
    """Bank and queries, filled in place."""
    generator = torch.Generator().manual_seed(0)
    return (torch.empty(rows, width).normal_(generator=generator) for rows in (n, n_queries))


def peak(way: str, n: int, width: int, n_queries: int) -> None:
    """Print the growth of the resident set, in MiB; in a process of its own."""
    bank, queries = made(n, width, n_queries)
    before = highest()
    WAYS[way](bank, queries)
    print((highest() - before) / 1024)


def highest() -> int:
    """The most that was resident so far, in KiB. (`ru_maxrss` counts the parent's before the exec, too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def neighbours(rounds: int, sizes: list[tuple[int, int, int]]) -> None:
    """A row for each size of the bank."""
    print(
        "| bank | queries | chunks / plain, CPU time | peak of chunks, MiB | peak of plain, MiB |\n"
        "|---|---|---|---|---|"
    )
    for n, width, n_queries in sizes:
        bank, queries = made(n, width, n_queries)
        ratios = []
        for i in range(rounds):
            spent = {}
            for way in sorted(WAYS, reverse=bool(i % 2)):
                started = time.process_time()
                WAYS[way](bank, queries)
                spent[way] = time.process_time() - started
            ratios.append(spent["chunks"] / spent["plain"])
        del bank, queries
        peaks = []
        for way in ("chunks", "plain"):
            command = [sys.executable, __file__, "peak", way, *map(str, (n, width, n_queries))]
            peaks.append(float(subprocess.check_output(command, text=True)))
        print(
            f"| {n} x {width} | {n_queries} | {spread(ratios)} | {peaks[0]:.0f} | {peaks[1]:.0f} |",
            flush=True,
        )


def spread(values: list[float]) -> str:
    """Median [quartiles]."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def jpegs(folder: Path, n: int) -> None:
    """Crops of real photographs, 320 x 256 px, in two classes."""
    from skimage import data

    photos = [
        Image.fromarray(photo) for photo in (data.astronaut(), data.coffee(), data.rocket(), data.chelsea())
    ]
    for i in range(n):
        photo = photos[i % len(photos)]
        x, y = 7 * i % (photo.width - 256), 5 * i % (photo.height - 204)
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        photo.crop((x, y, x + 256, y + 204)).resize((400, 320)).save(
            folder / "ab"[i % 2] / f"{i}.jpg", quality=90
        )


def caching(rounds: int, n: int, workers: int, batch: int, encoder: str) -> None:
    """Reading, computing and caching over the bare forward, and what the clock of the features says."""
    vit = timm.create_model(encoder, num_classes=0)
    model = Backbone(wrap_vit(vit, EncoderOptions(name=encoder)))
    extract = BackboneVectors(model)
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        images.mkdir()
        jpegs(images, n)
        source, size = open_source(images), model.image_size
        batches = [batch.images for batch in eval_batches(source, size, 3, batch, 0, DataOptions())]
        ratios, waits, again = [], [], []
        for i in range(rounds):
            computing = ComputeOptions(batch, workers, "cpu", cache=Path(place) / f"cache-{i}")
            started = time.perf_counter()
            with torch.inference_mode():
                for each in batches:
                    extract(each)
            bare = time.perf_counter() - started
            started = time.perf_counter()
            timing = collect(source, {"it": extract}, size, 3, None, computing).timing
            whole = time.perf_counter() - started
            started = time.perf_counter()
            collect(source, {"it": BackboneVectors(model)}, size, 3, None, computing)
            again.append((time.perf_counter() - started) / bare)
            assert timing is not None
            ratios.append(whole / bare)
            waits.append(timing.data_wait)
            print(f"round {i}: bare {n / bare:.1f} images/s; {timing}; {ratios[-1]:.3f}", flush=True)
    print(f"{encoder}, {n} JPEGs, {workers} workers, batch {batch}, {torch.get_num_threads()} threads:")
    print(f"features with a cache / bare forward {spread(ratios)}; data wait {spread(waits)}")
    print(f"from the cache / bare forward {spread(again)}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("neighbours", "caching", "peak"))
    parser.add_argument("given", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--encoder", default="vit_small_patch16_224")
    options = parser.parse_args()
    if options.what == "caching":
        caching(options.rounds, options.images, options.workers, options.batch, options.encoder)
        return
    torch.set_num_threads(1)
    if options.what == "peak":
        peak(options.given[0], *map(int, options.given[1:]))
        return
    neighbours(
        options.rounds,
        [
            (25_000, 256, 1024),
            (200_000, 256, 1024),
            (200_000, 64, 1024),
            (50_000, 768, 1024),
            (3_000, 12_288, 512),
        ],
    )


if __name__ == "__main__":
    main()
