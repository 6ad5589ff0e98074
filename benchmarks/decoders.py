"""CrossMAE's decoder beside MAE's, and each method's step beside its parts, interleaved in one process.

    python benchmarks/decoders.py                 # decoders: forward and backward on the encoder's output
    python benchmarks/decoders.py --steps s b     # whole steps of ViT-S and ViT-B with MFF and each decoder
    python benchmarks/decoders.py --parts         # a method's forward and backward / the sum of its parts'

Decoders read the output of a ViT-S/16 at 224 px with 49 of 196 patches visible, a batch of 16. In each round
every contender takes one turn, in an order that is turned from round to round; shown are the median of the
ratios of processor times within a round, and their quartiles. A whole step is forward, loss, backward and
fused AdamW on random images, at the batch sizes of `step.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import timm
import torch

import lamina
from lamina.core.batch import Batch
from lamina.core.patches import take
from lamina.core.rng import sample_keys
from lamina.decoder.cross import CrossDecoder
from lamina.decoder.mae import MAEDecoder
from lamina.masking.random import RandomMasking
from lamina.targets.teacher import Teacher
from lamina.targets.token_ids import TokenIds
from lamina.tokenizer.vae import DiscreteVAE
from step import SIZES, lamina_mae, ratios, stepper, vit

CROSS = {
    "s": ((256, 2, 8, 49), (256, 4, 8, 49), (256, 8, 8, 49), (512, 4, 16, 49), (256, 4, 8, 98)),
    "b": ((256, 4, 8, 49), (512, 4, 16, 49), (512, 8, 16, 49)),
}
"""Width, depth, heads and number of predicted patches of the cross decoders in whole steps."""
WIDTH, GRID, PATCH = 384, (14, 14), 16
SHAPE = (WIDTH, PATCH * PATCH * 3, GRID, 1)


def timed(turns: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round."""
    for turn in turns.values():
        turn()
    names = list(turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        k = i % len(names)
        for name in names[k:] + names[:k]:
            started = time.process_time()
            turns[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def decoders(batch: int) -> dict[str, Callable[[], None]]:
    """Forward and backward of each decoder."""
    keys = sample_keys(0, 0, torch.arange(batch))
    mask = RandomMasking(0.75)(keys, GRID)
    latent = torch.randn(batch, 50, WIDTH, requires_grad=True)

    def turn(decoder: torch.nn.Module) -> Callable[[], None]:
        n_latents = decoder.n_latents
        given = latent if n_latents == 1 else [latent] * n_latents

        def once() -> None:
            decoder.zero_grad()
            latent.grad = None
            decoder(given, mask, keys)[0].square().mean().backward()

        return once

    shapes = {
        "MAE 512 x 8 x 16 heads, 147 predicted": MAEDecoder(*SHAPE, 512, 8, 16),
        "cross 512 x 8 x 16 heads, 37 predicted": CrossDecoder(*SHAPE, 512, 8, 16, 37 / 196),
        "cross 512 x 8 x 16 heads, 49 predicted": CrossDecoder(*SHAPE, 512, 8, 16, 0.25),
        "cross 512 x 8 x 16 heads, 147 predicted": CrossDecoder(*SHAPE, 512, 8, 16, 0.75),
        "cross 256 x 12 x 8 heads, 49 predicted (published S)": CrossDecoder(
            *SHAPE, 256, 12, 8, 0.25, "per_block"
        ),
        "cross 512 x 12 x 16 heads, 49 predicted (published B's)": CrossDecoder(
            *SHAPE, 512, 12, 16, 0.25, "per_block"
        ),
    }
    return {name: turn(decoder.train()) for name, decoder in shapes.items()}


def steps(key: str) -> dict[str, Callable[[], None]]:
    """A training step of ViT-S or ViT-B with each decoder; all but the first with MFF."""
    size = SIZES[key]

    def fused(width: int, depth: int, heads: int, predicted: int) -> Callable[[], torch.nn.Module]:
        def build() -> torch.nn.Module:
            network = vit(size)
            lamina.init_vit_mae(network)
            fusion = lamina.MultiLevelFusion(size.width, size.depth)
            return lamina.crossmae(network, fusion, 0.75, predicted / 196, width, depth, heads)

        return build

    builders = {
        "MAE 512 x 8": lambda: lamina_mae(size),
        "MAE 512 x 8 + MFF": lambda: lamina_mae(size, fused=True),
        "MAE 256 x 4 + MFF": lambda: lamina_mae(
            replace(size, decoder_width=256, decoder_depth=4), fused=True
        ),
        **{
            f"cross {width} x {depth}, {predicted} predicted, + MFF": fused(width, depth, heads, predicted)
            for width, depth, heads, predicted in CROSS[key]
        },
    }
    return {name: stepper(build, size, "cpu") for name, build in builders.items()}


def small_vit(width: int = 192) -> torch.nn.Module:
    """A ViT of 64 px, patch 8, 12 blocks."""
    sizes = {"img_size": 64, "patch_size": 8, "embed_dim": width, "depth": 12, "num_heads": 3}
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)


def methods() -> dict[str, torch.nn.Module]:
    """Methods on a small ViT."""
    size = (128, 4, 4)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    named = dict(zip(("decoder_width", "decoder_depth", "decoder_heads"), size, strict=True))
    fusion = lamina.MultiLevelFusion(192, 12)
    return {
        "mae": lamina.mae(small_vit(), **named),
        "mae + MFF": lamina.mae(small_vit(), fusion, **named),
        "simmim": lamina.simmim(small_vit(), unit_px=16),
        "maskfeat": lamina.maskfeat(small_vit()),
        "beit": lamina.beit(small_vit(), TokenIds(DiscreteVAE((8, 5, 5, 5), width=32), (8, 8))),
        "eva": lamina.eva(small_vit(), Teacher(small_vit(), mean, std, (8, 8)), **named),
        "eva-tokens": lamina.eva_tokens(small_vit(), Teacher(small_vit(), mean, std, (8, 8))),
        "milan": lamina.milan(small_vit(), Teacher(small_vit(), mean, std, (8, 8), scores=True), **named),
        "crossmae": lamina.crossmae(small_vit(), **named),
        "pixio": lamina.pixio(small_vit(), class_tokens=1, **named),
        "residual decay": lamina.mae(small_vit(), residual_decay=0.6, **named),
    }


def whole(method: torch.nn.Module, batch: Batch) -> float:
    """Seconds of a forward and a backward."""
    method.zero_grad()
    started = time.perf_counter()
    method(batch)["loss"].backward()
    return time.perf_counter() - started


def parts(method: torch.nn.Module, batch: Batch) -> float:
    """Seconds of target, masking, encoder, fusion, decoder and loss, each forward and backward alone."""
    method.zero_grad()
    clock = Clock()
    target, scores = clock(lambda: method.target(batch.images))
    mask = clock(lambda: method.masking(batch.keys, method.encoder.grid, scores))
    n_visible = method.masking.n_visible(method.encoder.grid)
    features = clock(lambda: method.encoder(batch.images, method.fusion.layers, mask, n_visible))
    taps = [tap.detach().requires_grad_() for tap in features]
    latents = clock(lambda: method.fusion(taps, method.encoder.norm))
    several = isinstance(latents, list)
    read = [one.detach().requires_grad_() for one in (latents if several else [latents])]
    values, where = clock(lambda: method.decoder(read if several else read[0], mask, batch.keys))
    guess = values.detach().requires_grad_()
    loss = clock(lambda: method.loss(guess, take(target, where)).mean())
    clock(loss.backward)
    clock(lambda: values.backward(guess.grad))
    given = latents if several else [latents]
    clock(lambda: torch.autograd.backward(given, [one.grad for one in read]))
    with_grad = [(out, tap.grad) for out, tap in zip(features, taps, strict=True) if tap.grad is not None]
    clock(lambda: torch.autograd.backward(*map(list, zip(*with_grad, strict=True))))
    return clock.seconds


class Clock:
    """Adds up the seconds of what it calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, work: Callable[[], object]) -> object:
        started = time.perf_counter()
        done = work()
        self.seconds += time.perf_counter() - started
        return done


def main() -> None:
    """Print a line per contender."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", nargs="+", choices=list(CROSS), help="whole steps of these sizes")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    if options.parts:
        batch = Batch(torch.rand(64, 3, 64, 64), sample_keys(0, 0, torch.arange(64)))
        for name, method in methods().items():
            method.train()
            whole(method, batch), parts(method, batch)
            pairs = [
                (whole(method, batch), parts(method, batch))
                if i % 2
                else (parts(method, batch), whole(method, batch))[::-1]
                for i in range(options.rounds)
            ]
            found = ratios(*map(list, zip(*pairs, strict=True)))
            print(f"{name}: step / sum of parts {tell(found)}", flush=True)
        return
    for key in options.steps or ():
        print(f"whole steps of ViT-{key.upper()}, batch {SIZES[key].batch}")
        print_ratios(timed(steps(key), options.rounds))
    if not options.steps:
        print_ratios(timed(decoders(16), options.rounds))


def print_ratios(seconds: dict[str, list[float]]) -> None:
    """How many times as fast as the first each contender is, a line each."""
    first = next(iter(seconds))
    for name in seconds:
        print(f"{first.split(',')[0]} / {name}: {tell(ratios(seconds[first], seconds[name]))}", flush=True)


def tell(found: dict[str, float]) -> str:
    """A median and its quartiles."""
    return f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


if __name__ == "__main__":
    main()
