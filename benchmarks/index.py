"""What very many images cost before the first step: opening their index, and what it takes in memory.

    python benchmarks/index.py --images 10M
    python benchmarks/index.py --images 10M --rounds 3 --workers 4 --start spawn

A thousand tar files of four photographs each are made, and an index in a cache folder of its own that says
that each of them holds a thousandth of the images: whatever image is read, a photograph is read. So the index
is as large as that of so many images, and the disk need not be. (How long it takes to make an index, once, is
`--walk`: the headers of a tar file of so many members are gone through. `--folder` opens a folder of so many
empty files, which has no index; with `--images 0` nothing else is done.)

Each round is a process of its own: one opens the source, hashes its names and reads a first batch with worker
processes; another is `lamina pretrain` up to its first step. Both are done with a small index of the same tar
files too, so that the difference is what the number of images costs. Private memory is what a process has
written for itself ("Private_Dirty" of Linux); pages of a mapped file belong to all processes together.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lamina.data.archives.files import states_of, whole_file
from lamina.data.archives.members import Members
from lamina.data.archives.spans import SpanSource
from lamina.data.archives.tar import read_tar
from lamina.data.archives.whole import Opened, WholeIndex
from lamina.data.columns import Names, Numbers
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.runs.data_facts import data_facts

SHARDS, PER_SHARD, CLASSES = 1000, 4, 1000
SMALL = 100_000
MB = 1e6


def make_shards(folder: Path) -> list[str]:
    """Tar files of a few JPEGs of 500 x 375 px each."""
    drawn = np.random.default_rng(0)
    images = []
    for _ in range(PER_SHARD):
        coarse = drawn.integers(0, 256, (12, 16, 3), np.uint8)
        into = io.BytesIO()
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(into, "JPEG")
        images.append(into.getvalue())
    paths = []
    for shard in range(SHARDS):
        paths.append(str(folder / f"train-{shard:06d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for k, content in enumerate(images):
                member = tarfile.TarInfo(f"{k}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return paths


def make_index(shards: Sequence[str], images: int) -> None:
    """Keep an index of so many images, spread over the shards, each of which lies where a photograph does."""
    each = -(-images // len(shards))
    numbers = np.arange(images)
    places = np.array(members_of_tar(shards[0]).places, np.int64)[:, :2]
    spans = np.concatenate([(numbers // each)[:, None], places[numbers % PER_SHARD]], axis=1)
    names = Names(f"train-{i // each:06d}/{i // each % CLASSES:04d}/{i:08d}.jpg" for i in range(images))
    labels = numbers // each % CLASSES
    states = states_of(shards)
    classes = [f"{k:04d}" for k in range(CLASSES)]
    source = SpanSource(shards, spans, names, Numbers(labels), classes, states=states)
    WholeIndex(shards, states, "train").write(Opened(source, False))


def members_of_tar(path: str) -> Members:
    """The images of a tar file, by its headers."""
    state = states_of([path])[0]
    with whole_file(path, state) as file:
        return read_tar(path, file, state.size, lambda _: None)


def memory(process: int | str = "self") -> dict[str, float]:
    """Memory of a process in MB: what is its own, and all that it sees, pages of mapped files included."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kb = {key: int(value.split()[0]) for key, value in (line.split(":") for line in lines)}
    return {"private": kb["Private_Dirty"] * 1024 / MB, "resident": kb["Rss"] * 1024 / MB}


def peak_memory() -> float:
    """The most memory that this process has seen, in MB. (That of `getrusage` begins with the parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kb * 1024 / MB


def measure(spec: str, workers: int, start: str) -> dict[str, float]:
    """Open the source, hash its names and read a batch, in this process."""
    if start != "default":
        torch.multiprocessing.set_start_method(start)
    before, began, started = memory(), time.process_time(), time.perf_counter()
    source = open_source(spec)
    opened, after = time.perf_counter(), memory()
    hashing = time.process_time()
    data_facts(spec, source)
    hashed, reading = time.perf_counter(), time.process_time()
    options = DataOptions(workers=workers)
    batches = TrainLoader(source, options, 0, 64, image_size=(64, 64)).batches(0, 100)
    next(batches)
    read = time.perf_counter()
    of_workers = [memory(child.pid or 0)["private"] for child in multiprocessing.active_children()]
    batches.close()  # type: ignore[attr-defined]
    return {
        "open, s": opened - started,
        "open, processor time, s": hashing - began,
        "private memory for the open index, MB": after["private"] - before["private"],
        "resident memory for it, MB": after["resident"] - before["resident"],
        "digest of the names, s": hashed - opened,
        "digest of the names, processor time, s": reading - hashing,
        "first batch, s": read - hashed,
        "private memory of a worker, MB": statistics.mean(of_workers),
        "peak of resident memory, MB": peak_memory(),
    }


def first_step(spec: str, out: Path) -> dict[str, float]:
    """Seconds from the start of `lamina pretrain` to the row of its first step, and the processor time that
    it and its workers take until then."""
    options = [
        "--encoder",
        "vit_tiny_patch16_224",
        "--image-size",
        "64",
        "--batch-size",
        "16",
        "--workers",
        "2",
    ]
    options += ["--max-steps", "2", "--train.log-every-steps", "1", "--device", "cpu"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "lamina", "pretrain", spec, "--out", str(out), *options]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    rows, seconds, processor = out / "metrics.jsonl", 0.0, 0.0
    while running.poll() is None and not seconds:
        time.sleep(0.02)
        if rows.exists() and rows.stat().st_size:
            seconds = time.perf_counter() - started
            processor = sum(map(processor_seconds, (running.pid, *children(running.pid))))
    if running.wait() or not seconds:
        sys.exit(f"{command} failed")
    return {"start to first step, s": seconds, "processor time until then, s": processor}


def children(process: int) -> list[int]:
    """The processes that a process has started, and that are still there."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return list(map(int, found))


def processor_seconds(process: int) -> float:
    """Processor time that a process has taken so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_own_process(spec: str, options: argparse.Namespace) -> dict[str, float]:
    """What `measure` gives in a new process."""
    own = [sys.executable, __file__, "--workers", str(options.workers), "--start", options.start]
    found = subprocess.run([*own, "--measure", spec], stdout=subprocess.PIPE, check=True)
    numbers: dict[str, float] = json.loads(found.stdout)
    return numbers


def seconds_to_walk(members: int, folder: Path) -> float:
    """Seconds for the headers of a tar file of so many small members."""
    path = folder / "walked.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(members):
            tar.addfile(tarfile.TarInfo(f"{i % CLASSES:04d}/{i:08d}.jpg"))
    started = time.perf_counter()
    members_of_tar(str(path))
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def make_folder(folder: Path, files: int) -> None:
    """Empty files with the names of images, in folders of the classes."""
    for i in range(files):
        if i < CLASSES:
            (folder / f"{i:04d}").mkdir(parents=True)
        (folder / f"{i % CLASSES:04d}" / f"{i:08d}.jpg").touch()


def cost_of_folder(folder: str) -> dict[str, float]:
    """What opening a folder takes, in a process of its own."""
    before, began = memory()["resident"], time.process_time()
    open_source(folder)
    return {
        "open the folder, processor time, s": time.process_time() - began,
        "memory for it at the peak, MB": peak_memory() - before,
    }


def measure_folder(folder: Path, files: int, rounds: int) -> None:
    """Make a folder and print what opening it takes."""
    make_folder(folder, files)
    costs = []
    for _ in range(rounds):
        with multiprocessing.get_context("spawn").Pool(1) as own:
            costs.append(own.apply(cost_of_folder, (str(folder),)))
    print(table({f"{files:,} files": costs}), flush=True)


def table(columns: dict[str, list[dict[str, float]]]) -> str:
    """Markdown of medians and ranges."""
    lines = [f"| | {' | '.join(columns)} |", f"|---{'|---:' * len(columns)}|"]
    for what in next(iter(columns.values()))[0]:
        cells = []
        for rounds in columns.values():
            values = [each[what] for each in rounds]
            cells.append(f"{statistics.median(values):,.3g} [{min(values):,.3g}, {max(values):,.3g}]")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def count(text: str) -> int:
    """A number such as 200000, 200k or 10M."""
    factor = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    return round(float(text.rstrip("kM")) * factor)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=count, default=count("10M"), help="images of the index")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    parser.add_argument("--start", choices=("default", "fork", "spawn", "forkserver"), default="default")
    parser.add_argument("--no-pretrain", action="store_true", help="leave `lamina pretrain` out")
    parser.add_argument("--walk", type=count, default=0, help="members of a tar file that is indexed")
    parser.add_argument("--folder", type=count, default=0, help="files of a folder that is opened")
    parser.add_argument("--measure", metavar="SPEC", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.workers, options.start)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.walk:
            print(f"{options.walk:,} headers: {seconds_to_walk(options.walk, folder):.1f} s", flush=True)
        if options.folder:
            measure_folder(folder / "files", options.folder, options.rounds)
        if not options.images:
            return
        (folder / "shards").mkdir()
        spec, shards = str(folder / "shards"), make_shards(folder / "shards")
        columns: dict[str, list[dict[str, float]]] = {}
        for images in (SMALL, options.images):
            os.environ["LAMINA_CACHE"] = str(folder / f"cache-{images}")
            make_index(shards, images)
            size = sum(file.stat().st_size for file in Path(os.environ["LAMINA_CACHE"]).rglob("*.arrays"))
            print(f"index of {images:,} images: {size / MB:,.0f} MB on the disk", flush=True)
        for number in range(options.rounds):
            for images in (SMALL, options.images):  # in turn
                os.environ["LAMINA_CACHE"] = str(folder / f"cache-{images}")
                found = in_own_process(spec, options)
                if not options.no_pretrain:
                    found |= first_step(spec, folder / f"run-{images}-{number}")
                columns.setdefault(f"{images:,} images", []).append(found)
        print(f"Median [smallest, largest] of {options.rounds} rounds; {options.workers} workers:\n")
        print(table(columns))


if __name__ == "__main__":
    main()
