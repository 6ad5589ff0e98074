"""Whole trainings: `lamina pretrain` beside a plain script of transformers' ViTMAE on ImageFolder.

    python benchmarks/end_to_end.py loader --rounds 5
    python benchmarks/end_to_end.py network --steps 30 --rounds 3

The script is what people write: torchvision's ImageFolder with RandomResizedCrop (bicubic), flip, ToTensor
and Normalize on Pillow, a DataLoader, ViTMAEForPreTraining, fused AdamW, and a line of the loss at each
twentieth step; it draws no report and saves nothing. lamina does all that it does by default: masks by keys,
rows, report, pictures, online evaluation, checkpoint and export. Both read the same 50 photographs of
500 x 375 px and train a network of the same size for the same number of steps of the same batch. `loader`: a
network of 96 x 2 on crops of 64 px, so that reading takes most of the time; `network`: ViT-S/16 with MAE's
decoder.

What is timed is the processor time of the process, all its threads included, from the first to the last line
of the training, with the building of the network; workers 0, one thread. In each round both train once, in
an order that is turned from round to round; shown are the median of the ratios and their quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode

import lamina
from loader import write_small
from step import Size, ratios, transformers_mae

SIZES = {
    "loader": (Size(64, 8, 96, 2, 3, 64, 1, 4, 50, 0), 300),
    "network": (Size(224, 16, 384, 12, 6, 512, 8, 16, 10, 0), 30),
}
"""The network, the batch, and the number of steps."""


def plain_script(root: Path, size: Size, steps: int) -> None:
    """ViTMAE on ImageFolder."""
    change = v1.Compose(
        [
            v1.RandomResizedCrop(size.image, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = DataLoader(datasets.ImageFolder(str(root), change), size.batch, shuffle=True, drop_last=True)
    model = transformers_mae(size).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    step = 0
    while step < steps:
        for images, _ in loader:
            loss = model(images).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0 or step == steps:
                print(step, loss.item())
            if step == steps:
                return


def by_lamina(root: Path, size: Size, steps: int, fusion: str) -> None:
    """`lamina.pretrain` with all that it does by default."""
    with tempfile.TemporaryDirectory() as folder:
        lamina.pretrain(
            root,
            Path(folder) / "run",
            "mae",
            image_size=size.image,
            patch_size=size.patch,
            fusion=fusion,
            batch_size=size.batch,
            max_steps=steps,
            workers=0,
            device="cpu",
            precision="fp32",
            options={
                "encoder.width": size.width,
                "encoder.depth": size.depth,
                "encoder.heads": size.heads,
                "decoder.width": size.decoder_width,
                "decoder.depth": size.decoder_depth,
                "decoder.heads": size.decoder_heads,
                **({"fusion.layers": "all"} if fusion == "mff" and size.depth < 12 else {}),
            },
        )


def timed(train: Callable[[], None]) -> float:
    """Processor seconds, without what is printed."""
    with contextlib.redirect_stdout(io.StringIO()):
        started = time.process_time()
        train()
        return time.process_time() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=list(SIZES))
    parser.add_argument("--steps", type=int, help="in place of those of the size")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, steps = SIZES[options.size]
    steps = options.steps or steps
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "photographs").mkdir()
        write_small(root / "photographs")
        turns: dict[str, Callable[[], None]] = {
            "plain script, transformers": partial(plain_script, root, size, steps),
            "lamina, MAE": partial(by_lamina, root, size, steps, "none"),
            "lamina, MAE + MFF": partial(by_lamina, root, size, steps, "mff"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for train in turns.values():
            timed(train)
        names = list(turns)
        for i in range(options.rounds):
            k = i % len(names)
            for name in names[k:] + names[:k]:
                seconds[name].append(timed(turns[name]))
    print(f"{options.size}: {steps} steps of {size.batch} images, {options.rounds} rounds")
    print("| | seconds | times as fast as the plain script |\n|---|---|---|")
    first = seconds[names[0]]
    for name, values in seconds.items():
        found = ratios(first, values)
        rate = f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        print(f"| {name} | {sorted(values)[len(values) // 2]:.1f} | {rate} |")


if __name__ == "__main__":
    main()
