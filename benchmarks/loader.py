"""The loader beside torchvision's ImageFolder with the transforms of the field, on one core, in one process.

    python benchmarks/loader.py                     # 50 photographs of 500 x 375 px, crops of 224 px, packs
    python benchmarks/loader.py --large             # 12 of 4000 x 3000 px, packs, PSNR of reduced decoding
    python benchmarks/loader.py --methods           # the views of each method beside MAE's
    python benchmarks/loader.py --deep              # the small ones as PNG of 16 bits
    python benchmarks/loader.py --decoders          # decoders alone; those that are installed
    python benchmarks/loader.py --header            # without Pillow's look at plain headers, and with it

The photographs are parts of those in the wheels of scikit-image and scikit-learn, as JPEG of quality 94. What
is timed is processor time, from the file to a batch of images, keys and masks (for ImageFolder: a batch of
normalised images). In each round every contender reads all photographs, in an order that is turned from round
to round; shown are the median of the ratios within a round and their quartiles.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode

from lamina.core.batch import Batch
from lamina.data.augment.crops import RandomResizedCrop
from lamina.data.decode import decode as decoding
from lamina.data.decode import deep_png, jpeg
from lamina.data.decode.decode import decode_file
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.data.pack.encode import Format
from lamina.data.pack.write import pack
from lamina.masking.random import RandomMasking
from lamina.methods.catalog import recipe
from step import ratios

SIDE = 224
FORMATS: tuple[Format, ...] = ("jpeg", "raw")
_FOLDERS = (("skimage", "data"), ("sklearn", "datasets/images"))
_PHOTOGRAPHS = (
    *(
        "astronaut.png",
        "coffee.png",
        "chelsea.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
    ),
    *("retina.jpg", "rocket.jpg", "china.jpg", "flower.jpg"),
)
_PARTS = ((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.8), (0.0, 1.0, 0.75), (1.0, 0.0, 0.7))
"""Place along both axes and share of the width, of each part that is cut out."""

Contender = Callable[[int], object]
"""Reads all photographs for the round of that number."""


def photographs() -> Iterator[Image.Image]:
    """Those in the wheels, in colour."""
    for package, folder in _FOLDERS:
        found = find_spec(package)
        assert found is not None
        assert found.origin is not None
        for name in _PHOTOGRAPHS:
            file = Path(found.origin).parent / folder / name
            if file.is_file():
                yield Image.open(file).convert("RGB")


def write_small(folder: Path) -> None:
    """Five parts of each photograph, 500 x 375 px."""
    for k, image in enumerate(photographs()):
        for i, (x, y, share) in enumerate(_PARTS):
            width = min(image.width, image.height * 4 / 3) * share
            left, top = (image.width - width) * x, (image.height - width * 3 / 4) * y
            box = (left, top, left + width, top + width * 3 / 4)
            part = image.resize((500, 375), Image.Resampling.BICUBIC, box)
            part.save(folder / f"{k}-{i}.jpg", quality=94)


def write_deep(folder: Path) -> None:
    """The same as `write_small`, as PNG of 16 bits with noise in the lower 8, each row less the one above."""
    with tempfile.TemporaryDirectory() as small:
        write_small(Path(small))
        for k, file in enumerate(sorted(Path(small).iterdir())):
            noise = np.random.default_rng(k).normal(0, 60, (375, 500, 3))
            pixels = np.asarray(Image.open(file), np.float64) * 257 + noise
            (folder / f"{file.stem}.png").write_bytes(_deep_png(pixels.clip(0, 65535).astype(np.uint16)))


def _deep_png(pixels: np.ndarray[Any, np.dtype[np.uint16]]) -> bytes:
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    up = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], 1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def write_large(folder: Path, n: int = 12) -> None:
    """Photographs of 4000 x 3000 px: those of the wheels side by side and in rows, not enlarged, so that
    pixels are as detailed as in photographs."""
    images = list(photographs())
    rng = np.random.default_rng(0)
    for k in range(n):
        whole, top = Image.new("RGB", (4000, 3000)), 0
        while top < 3000:
            left, height = 0, 3000
            while left < 4000:
                image = images[rng.integers(len(images))]
                whole.paste(image, (left, top))
                left, height = left + image.width, min(height, image.height)
            top += height
        whole.save(folder / f"{k}.jpg", quality=92)


def folder_of(root: Path) -> datasets.ImageFolder:
    """What the reference implementations read."""
    change = v1.Compose(
        [
            v1.RandomResizedCrop(SIDE, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return datasets.ImageFolder(str(root), change)


def image_folder(root: Path) -> Contender:
    """What the reference implementations do."""
    found = folder_of(root)

    def read(step: int) -> Tensor:
        torch.manual_seed(step)
        return torch.stack([found[i][0] for i in range(len(found))])

    return read


def lamina(root: Path, options: DataOptions | None = None, fast: bool = True) -> Contender:
    """lamina's reader with masks; a step is a pass over the photographs. Not `fast`: Pillow alone decodes."""
    source = open_source(str(root))
    options = replace(options or DataOptions(), workers=0)
    masking, grid = RandomMasking(0.75), (SIDE // 16, SIDE // 16)
    loader = TrainLoader(source, options, 0, len(source), image_size=(SIDE, SIDE), masking=masking, grid=grid)
    probe, without = jpeg.usable, lambda: False

    def read(step: int) -> Batch:
        jpeg.usable = probe if fast else without  # type: ignore[assignment]
        try:
            return next(loader.batches(step, step + 1))
        finally:
            jpeg.usable = probe

    return read


def on_tensors(root: Path, decode: Callable[[bytes], Tensor]) -> Contender:
    """A decoder, and lamina's crop, without checks, masks and all else."""
    files, crop = sorted(root.glob("*/*.jpg")), RandomResizedCrop((SIDE, SIDE))

    def read(step: int) -> Tensor:
        draws = np.random.default_rng(step).random((len(files), crop.n_draws)).tolist()
        return torch.stack([crop(decode(f.read_bytes()), d) for f, d in zip(files, draws, strict=True)])

    return read


def decoders() -> dict[str, Callable[[bytes], Tensor]]:
    """Those that are installed, from a file's bytes to (3, H, W)."""

    def tensor(content: bytes) -> Tensor:
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    found: dict[str, Callable[[bytes], Tensor]] = {
        "Pillow": lambda content: torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)
    }
    if find_spec("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = lambda content: torch.from_numpy(simplejpeg.decode_jpeg(content)).permute(
            2, 0, 1
        )
    try:
        from torchvision.io import decode_jpeg

        found["torchvision"] = lambda content: decode_jpeg(tensor(content))
    except ImportError:
        pass
    if find_spec("torchcodec"):
        from torchcodec.decoders import decode_jpeg as by_torchcodec

        found["torchcodec"] = lambda content: by_torchcodec(tensor(content))
    return found


def deep(root: Path) -> dict[str, Contender]:
    """ImageFolder, which gets 8 of the 16 bits, and lamina with and without imagecodecs."""
    one_pass, without = deep_png._in_one_pass, lambda *_: None
    reader = lamina(root)

    def in_two(step: int) -> object:
        deep_png._in_one_pass = without  # type: ignore[assignment]
        try:
            return reader(step)
        finally:
            deep_png._in_one_pass = one_pass

    found = {"ImageFolder, Pillow": image_folder(root), "lamina, without imagecodecs": in_two}
    return found | ({"lamina": reader} if find_spec("imagecodecs") else {})


def of_headers(root: Path) -> dict[str, Contender]:
    """ImageFolder, and lamina where Pillow looks at each header and where it does not look at plain ones."""
    plain, reader = decoding.read_plain_jpeg, lamina(root, DataOptions(jpeg_decoding="reduced"))

    def by_pillow(step: int) -> object:
        decoding.read_plain_jpeg = lambda *_: None  # type: ignore[assignment]
        try:
            return reader(step)
        finally:
            decoding.read_plain_jpeg = plain

    return {
        "ImageFolder, Pillow": image_folder(root),
        "lamina, headers by Pillow": by_pillow,
        "lamina": reader,
    }


def decoding_alone(root: Path) -> dict[str, Contender]:
    """Each decoder on all files."""
    contents = [file.read_bytes() for file in sorted(root.glob("*/*.jpg"))]
    first = [decode(contents[0]) for decode in decoders().values()]
    assert all(torch.equal(first[0], other) for other in first), "decoders differ"
    return {
        name: (lambda step, decode=decode: [decode(content) for content in contents])
        for name, decode in decoders().items()
    }


def of_methods(root: Path) -> dict[str, Contender]:
    """The reader of each method's recipe that has views of its own."""
    names = ("mae", "beit", "cmae", "deit")
    return {name: lamina(root, recipe(name).data) for name in names}


def contenders(root: Path, large: bool) -> dict[str, Contender]:
    """All that are compared with the first."""
    found = {"ImageFolder, Pillow": image_folder(root)}
    for form in FORMATS:
        print("\n".join(pack(str(root), root.parent / form, format=form, workers=0).lines()))
    if large:
        found["lamina, whole images, Pillow"] = lamina(root, fast=False)
        found["lamina, whole images"] = lamina(root)
        found["lamina, reduced, Pillow"] = lamina(root, DataOptions(jpeg_decoding="reduced"), fast=False)
        found["lamina, reduced"] = lamina(root, DataOptions(jpeg_decoding="reduced"))
        return found
    found |= {f"{name} and lamina's crop": on_tensors(root, each) for name, each in decoders().items()}
    found["lamina, Pillow"] = lamina(root, fast=False)
    for form in FORMATS:
        found[f"lamina, packed {form}"] = lamina(root.parent / form, DataOptions(jpeg_decoding="reduced"))
    for views in (1, 2, 5):
        name = "lamina" if views == 1 else f"lamina, {views} views per read"
        found[name] = lamina(root, DataOptions(views_per_read=views, jpeg_decoding="reduced"))
    return found


def timed(turns: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of every contender in every round."""
    names = list(turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in turns.values():
        turn(0)
    for i in range(rounds):
        k = i % len(names)
        for name in names[k:] + names[:k]:
            started = time.process_time()
            turns[name](i + 1)
            seconds[name].append(time.process_time() - started)
    return seconds


def print_ratios(seconds: dict[str, list[float]], n: int) -> None:
    """A table: each beside the first."""
    first = next(iter(seconds))
    print(f"| | images/s of a core | times as fast as {first} |\n|---|---|---|")
    for name, values in seconds.items():
        found = ratios(seconds[first], values)
        rate = n / statistics.median(values)
        print(f"| {name} | {rate:.0f} | {found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}] |")


def print_psnr(root: Path, crops: int) -> None:
    """How far crops of reduced decoding are from those of whole images."""
    crop, near, factors = RandomResizedCrop((SIDE, SIDE)), [], []
    how = DataOptions().decoding(3)
    for file in sorted(root.glob("*/*.jpg")):
        whole = decode_file(str(file), how).image
        for draws in np.random.default_rng(0).random((crops, crop.n_draws)).tolist():
            need: Any = replace(how, reduce=lambda h, w, draws=draws: crop.factor(h, w, draws))
            small = decode_file(str(file), need)
            a, b = crop(whole, draws).double(), crop(small.image, draws, small.reduced).double()
            near.append(10 * math.log10(255**2 / (a - b).square().mean().item()))
            factors.append(1 if small.reduced is None else small.reduced.factor)
    low, middle, high = np.quantile(near, (0.25, 0.5, 0.75))
    print(
        f"PSNR of {len(near)} crops: {middle:.1f} dB [{low:.1f}, {high:.1f}], least {min(near):.1f};", end=" "
    )
    print("factors", {f: factors.count(f) for f in sorted(set(factors))})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--decoders", action="store_true")
    parser.add_argument("--header", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        (root / "photographs").mkdir(parents=True)
        write = write_large if options.large else write_deep if options.deep else write_small
        write(root / "photographs")
        files = sorted(root.glob("*/*"))
        size = sum(file.stat().st_size for file in files) / len(files) / 1000
        print(f"torch {torch.__version__}, Pillow {Image.__version__}, {len(files)} files of {size:.0f} kB")
        if options.methods:
            turns = of_methods(root)
        elif options.deep:
            turns = deep(root)
        elif options.decoders:
            turns = decoding_alone(root)
        elif options.header:
            turns = of_headers(root)
        else:
            turns = contenders(root, options.large)
        print_ratios(timed(turns, options.rounds), len(files))
        if options.large:
            print_psnr(root, 20)


if __name__ == "__main__":
    main()
