"""Images in parquet against the same images in a folder: processor time by the size of the row groups.

    python benchmarks/tables.py [--images 1200] [--repeats 5]

JPEGs of 500 x 375 px, 40 kB each, are read in random order, decoding included, interleaved with the folder.
Row groups are kept up to an eighth of all bytes, as they are of data of 2 GiB with lamina's 256 MiB.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lamina.data.open import open_source
from lamina.data.sources import Source
from lamina.data.tables import stored

GROUPS = (1, 10, 30, 100)


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    into = io.BytesIO()
    Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(into, "JPEG", quality=90)
    return into.getvalue()


def seconds(source: Source, order: list[int]) -> float:
    """Processor time of reading these images, from nothing kept."""
    if isinstance(source, stored.StoredSource):
        source.groups.forget()
    start = time.process_time()
    for i in order:
        source.read(i)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        images = [jpeg(i) for i in range(given.images)]
        for i, image in enumerate(images):
            (root / "images" / f"{i:05d}.jpg").write_bytes(image)
        for rows in GROUPS:
            pq.write_table(pa.table({"image": images}), root / f"{rows}.parquet", row_group_size=rows)
        stored.KEPT_BYTES = sum(map(len, images)) // 8
        sources = {rows: open_source(str(root / f"{rows}.parquet")) for rows in GROUPS}
        folder = open_source(str(root / "images"))
        ratios: dict[int, list[float]] = {rows: [] for rows in GROUPS}
        for repeat in range(given.repeats):
            order = np.random.default_rng(repeat).permutation(given.images).tolist()
            own = seconds(folder, order)
            for rows, source in sources.items():
                ratios[rows].append(seconds(source, order) / own)
    print(f"{given.images} images, {given.repeats} repeats; time of the folder = 1")
    for rows, found in ratios.items():
        print(f"row groups of {rows:3d}: {statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]")


if __name__ == "__main__":
    main()
