"""The training step of MAE and MAE + MFF beside two peers, interleaved in one process.

    python benchmarks/step.py                       # all sizes
    python benchmarks/step.py --sizes s --rounds 15
    python benchmarks/step.py --adamw loop          # torch's default AdamW on a CPU
    python benchmarks/step.py --adamw own           # fused for lamina, as in its loop; the default for peers

Everyone steps with the same AdamW unless told otherwise: fused, as lamina and transformers' Trainer use it.
A step is forward, loss, backward and AdamW on random images that are already in memory as floats. In each
round every contender takes one step, in an order that is turned from round to round; what counts is the
median over the rounds of the ratio of times within a round (in brackets its quartiles), so that a slow spell
of a shared machine hits everyone. Peak memory is the growth of the resident set while one contender alone
takes steps, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

import lamina

PEERS = ("transformers", "lightly")


@dataclass(frozen=True)
class Size:
    """An encoder, a decoder and a batch."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    batch: int
    rounds: int


SIZES = {
    "s": Size(224, 16, 384, 12, 6, 512, 8, 16, 16, 9),
    "b": Size(224, 16, 768, 12, 12, 512, 8, 16, 8, 9),
    "small-64": Size(64, 8, 192, 12, 3, 128, 4, 4, 64, 25),
    "small-8": Size(64, 8, 192, 12, 3, 128, 4, 4, 8, 101),
}


def vit(size: Size) -> nn.Module:
    """A timm ViT of that size."""
    return timm.create_model(
        "vit_base_patch16_224",
        img_size=size.image,
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        num_classes=0,
    )


def lamina_mae(size: Size, fused: bool = False) -> nn.Module:
    """Ours, without or with fusion."""
    network = vit(size)
    lamina.init_vit_mae(network)
    fusion = lamina.MultiLevelFusion(size.width, size.depth) if fused else None
    return lamina.mae(network, fusion, 0.75, size.decoder_width, size.decoder_depth, size.decoder_heads)


def transformers_mae(size: Size) -> nn.Module:
    """transformers' ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        image_size=size.image,
        patch_size=size.patch,
        decoder_hidden_size=size.decoder_width,
        decoder_num_hidden_layers=size.decoder_depth,
        decoder_num_attention_heads=size.decoder_heads,
        decoder_intermediate_size=4 * size.decoder_width,
        mask_ratio=0.75,
        norm_pix_loss=True,
    )
    return ViTMAEForPreTraining(config)


class LightlyMAE(nn.Module):
    """MAE put together from lightly's modules, as its documentation does."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from lightly.models import utils
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.masked_vision_transformer_decoder_timm import (
            MaskedVisionTransformerDecoderTIMM,
        )

        self.utils, self.patch = utils, size.patch
        self.backbone = MaskedVisionTransformerTIMM(vit=vit(size))
        self.length = self.backbone.sequence_length
        self.embed = nn.Linear(size.width, size.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.length - 1,
            embed_dim=size.decoder_width,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
        )
        self.head = nn.Linear(size.decoder_width, size.patch**2 * 3)
        self.criterion = nn.MSELoss()

    def forward(self, images: Tensor) -> Tensor:
        """The loss."""
        utils, b = self.utils, len(images)
        keep, hide = utils.random_token_mask((b, self.length), mask_ratio=0.75, device=images.device)
        encoded = self.embed(self.backbone.encode(images, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (b, self.length))
        tokens = utils.set_at_index(tokens, keep, encoded.type_as(tokens))
        predicted = self.head(utils.get_at_index(self.decoder(tokens), hide))
        target = utils.get_at_index(utils.patchify(images, self.patch), hide - 1)
        return self.criterion(predicted, utils.normalize_mean_var(target))


def loss_of(output: object) -> Tensor:
    """The loss, however a contender hands it out."""
    if isinstance(output, Tensor):
        return output
    return output["loss"] if isinstance(output, dict) else output.loss


def contenders(size: Size) -> dict[str, Callable[[], nn.Module]]:
    """Builders by name."""
    return {
        "lamina": lambda: lamina_mae(size),
        "lamina + MFF": lambda: lamina_mae(size, fused=True),
        "transformers": lambda: transformers_mae(size),
        "lightly": lambda: LightlyMAE(size),
    }


def stepper(
    build: Callable[[], nn.Module], size: Size, device: str, fused: bool = True
) -> Callable[[], None]:
    """One training step of a contender."""
    torch.manual_seed(0)
    model = build().to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=fused or None
    )
    images = torch.rand(size.batch, 3, size.image, size.image, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model(images)).backward()
        optimizer.step()

    return step


def wait(device: str) -> None:
    """Until the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def rounds(size: Size, n: int, device: str, adamw: str) -> dict[str, list[float]]:
    """Seconds per step of every contender in each of `n` rounds."""
    steppers = {
        name: stepper(build, size, device, adamw == "fused" or (adamw == "own" and name not in PEERS))
        for name, build in contenders(size).items()
    }
    for step in steppers.values():
        step()
        step()
    names = list(steppers)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(n):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            wait(device)
            started = time.perf_counter()
            steppers[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    """Median and quartiles of over / under, round by round."""
    values = sorted(a / b for a, b in zip(over, under, strict=True))
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def peak_mib(name: str, key: str, device: str) -> float:
    """Peak memory of three steps beyond what was there before the model, in a process of its own."""
    code = f"import step; print(step.own_peak({name!r}, {key!r}, {device!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def own_peak(name: str, key: str, device: str) -> float:
    """What `peak_mib` runs."""
    size = SIZES[key]
    build = contenders(size)[name]
    if not device.startswith("cuda"):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = memory_mib("VmRSS")
    step = stepper(build, size, device)
    for _ in range(3):
        step()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mib("VmHWM") - before


def memory_mib(field: str) -> float:
    """A line of Linux's /proc/self/status: VmRSS is resident now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(key: str, n: int | None, device: str, adamw: str, memory: bool) -> dict[str, object]:
    """All numbers of one size."""
    size = SIZES[key]
    n = n or size.rounds
    seconds = rounds(size, n, device, adamw)
    faster = min(PEERS, key=lambda name: statistics.median(seconds[name]))
    result: dict[str, object] = {
        "size": key,
        "rounds": n,
        "batch": size.batch,
        "faster peer": faster,
        "images per second": {k: size.batch / statistics.median(v) for k, v in seconds.items()},
        "faster peer / lamina": ratios(seconds[faster], seconds["lamina"]),
        "faster peer / lamina + MFF": ratios(seconds[faster], seconds["lamina + MFF"]),
        "lamina + MFF / lamina": ratios(seconds["lamina + MFF"], seconds["lamina"]),
    }
    if memory:
        result["peak MiB"] = {name: round(peak_mib(name, key, device)) for name in contenders(size)}
    return result


def main() -> None:
    """Print a line per size; with --json, keep everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, help="by default 9 for s and b, more for the small sizes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--adamw", choices=("fused", "loop", "own"), default="fused")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    about = f"torch {torch.__version__}, {threads} threads, {options.device}, {options.adamw} AdamW"
    print(about, flush=True)
    results = []
    for key in options.sizes:
        result = measure(key, options.rounds, options.device, options.adamw, not options.no_memory)
        results.append(result)
        cells = [
            f"{k} {v['median']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for k, v in result.items() if "/" in k
        ]
        print(
            f"{key}, {result['rounds']} rounds: faster peer is {result['faster peer']}; " + "; ".join(cells)
        )
        print(f"    images/s { ({k: round(v, 1) for k, v in result['images per second'].items()}) }")
        if "peak MiB" in result:
            print(f"    peak MiB {result['peak MiB']}", flush=True)
    if options.json:
        settings = {"threads": threads, "torch": torch.__version__, "adamw": options.adamw}
        options.json.write_text(json.dumps({**settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
