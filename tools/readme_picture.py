"""The picture of README.md: held-out parts of photographs, masked, and as a run reconstructs them.

    lamina pretrain "sample:photos?crop=128&stride=16&most=400" --out runs/picture --recipe mae-small \\
        --image-size 96 --encoder.depth 6 --decoder.depth 2 --batch-size 32 --base-lr 6e-3 \\
        --optim.warmup-steps 60 --max-steps 1000 --workers 0
    python tools/readme_picture.py runs/picture docs/reconstructions.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from PIL import Image

import lamina
from lamina.data.open import open_source

DATA = "sample:photos?crop=128&stride=16&most=400"
"""Photographs whose left and right parts are trained on and held out."""
SHOWN = ("coins", "brick", "motorcycle_left", "astronaut", "ihc", "camera")
"""A held-out crop of each: the one in the middle of the list."""
TITLES = ("original", "masked input", "reconstruction")


def crops(folder: Path) -> list[Path]:
    """The crops as files."""
    source = open_source(DATA, "val")
    names = [source.name(i).partition(".")[0] for i in range(len(source))]
    files = []
    for name in SHOWN:
        found = [i for i, each in enumerate(names) if each == name]
        files.append(folder / f"{name}.png")
        Image.fromarray(source.read(found[len(found) // 2]).permute(1, 2, 0).numpy()).save(files[-1])
    return files


def draw(run: Path, out: Path) -> None:
    """Two columns of strips, each as `lamina reconstruct` writes it."""
    with TemporaryDirectory() as folder:
        strips = lamina.reconstruct_files(run, crops(Path(folder)), Path(folder) / "strips")
        figure, axes = plt.subplots((len(strips) + 1) // 2, 2, figsize=(10, 5.4), layout="constrained")
        for axis, strip in zip(axes.flat, strips, strict=False):
            axis.imshow(Image.open(strip), interpolation="nearest")
            axis.axis("off")
        for axis in axes[0]:
            for i, title in enumerate(TITLES):
                axis.text((i + 0.5) / len(TITLES), 1.03, title, transform=axis.transAxes, ha="center")
        figure.savefig(out, dpi=110)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
