"""Small trainings of several methods whose ranks hold all weights, or shares of them, for the tests of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lamina
from helpers.options import TINY_NETWORK
from lamina.cmae.cmae import CMAE
from lamina.cmae.options import CMAEOptions
from lamina.core.batch import Batch
from lamina.core.frozen import eval_mode
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.fusion.mff import MultiLevelFusion
from lamina.methods import crossmae, mae, milan
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions
from lamina.targets.teacher import Teacher
from lamina.train.callbacks import Callback
from lamina.train.distributed import process_group
from lamina.train.layout import Layout
from lamina.train.loop import fit
from lamina.train.optim import build_optimizer, optimizer_tensors
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions
from lamina.train.shares import own_share

DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
OPTIM = OptimOptions(base_lr=0.05, warmup_epochs=0.0, clip_grad=0.1)
STEPS, BATCH, POISONED = 4, 12, 1
"""The step POISONED has an image that is not a number, in the part of the last rank."""


def vit(**sizes: Any) -> nn.Module:
    return build_vit(
        EncoderOptions(
            **{"image_size": (16, 16), "patch_size": 4, "width": 24, "depth": 3, "heads": 2, **sizes}
        )
    )


def recomputed() -> nn.Module:
    task = mae(vit(), MultiLevelFusion(24, 3, "all"), **DECODER)
    task.encoder.activation_checkpointing = True
    return task


def taught() -> nn.Module:
    teacher = Teacher(vit(depth=1), (0.5,) * 3, (0.25,) * 3, (4, 4), scores=True)
    return milan(vit(), teacher, **DECODER)


TASKS: dict[str, Callable[[], nn.Module]] = {
    "mae": recomputed,
    "decay": lambda: mae(vit(), residual_decay=0.6, **DECODER),
    "crossmae": lambda: crossmae(vit(), **DECODER),
    "milan": taught,
    "cmae": lambda: CMAE(mae(vit(), **DECODER), CMAEOptions(hidden=20, out=12, momentum=0.5), 16, 2),
    "deit": lambda: Supervised(
        Encoder(vit()),
        MultiLevelFusion(24, 3, "all"),
        3,
        SupervisedOptions(ema=0.5, mixup=0.0, cutmix=0.0),
    ),
}


TRAINED = ("mae", "milan", "cmae", "deit")
"""Those that are trained, one for each way in which something beside the weights matters."""


def task_of(name: str) -> nn.Module:
    """A task with weights that follow from its name alone."""
    torch.manual_seed(0)
    task = TASKS[name]()
    for parameter in task.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    if isinstance(task, CMAE):
        task.restart_target()
    if isinstance(task, Supervised):
        task.restart_average()
    return task


@dataclass
class KeyedLoader:
    """Images, views, labels and keys that follow from the step."""

    rank: int
    world: int
    n_samples: int = BATCH

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for step in range(first_step, last_step):
            generator = torch.Generator().manual_seed(step)
            images, view = torch.rand(2, BATCH, 3, 16, 16, generator=generator)
            if step == POISONED:
                images[-1] = torch.nan
            keys = sample_keys(0, step, torch.arange(BATCH))
            batch = Batch(images, keys, labels=torch.arange(BATCH) % 3, view=view)
            share = BATCH // self.world
            yield list(batch.split(share))[self.rank]


class Watching(Callback):
    """Adds, at each row, what the encoder says of fixed images, and the sum of all squares of weights."""

    required = True

    def on_log(self, step: int, row: dict, batch: Batch, task: nn.Module) -> dict:
        with eval_mode(task):
            (seen,) = task.encoder(next(KeyedLoader(0, 1).batches(7, 8)).images, (task.encoder.depth - 1,))
        size = sum(p.double().square().sum().item() for p in task.parameters())
        return {"seen": seen.abs().mean().item(), "size": size}


def train(
    folder: Path, name: str, shard: str, *, resume: bool = False, steps: int = STEPS, **options: Any
) -> None:
    """A training of the task `name`, by all ranks that there are."""
    asked = {"max_steps": steps, "batch_size": BATCH, "log_every_steps": 1, "checkpoint_every_steps": 1}
    asked |= {"keep_checkpoints": 99, "device": "cpu", "shard": shard, **options}
    with process_group("cpu") as ranks:
        loader = KeyedLoader(ranks.rank, ranks.world)
        fit(task_of(name), loader, OPTIM, TrainOptions(**asked), folder, [Watching()], resume)


def train_each(folder: Path) -> None:
    """On each rank: every task with all weights and with shares of them, then what is held in each case."""
    with process_group("cpu") as ranks:
        for name in TRAINED:
            for shard in ("none", "fsdp"):
                train(folder / f"{name}-{shard}", name, shard)
        for shard in ("none", "fsdp"):
            train(folder / f"bf16-{shard}", "mae", shard, precision="bf16")
        pretrain_both(folder)
        train(folder / "micro-fsdp", "mae", "fsdp", micro_batch_size=2)
        (folder / f"held-{ranks.rank}.json").write_text(json.dumps(held()))
        (folder / f"gathered-{ranks.rank}.json").write_text(json.dumps(gathered()))


def held() -> dict[str, object]:
    """Bytes of weights and optimiser state on this rank where they are cut; and whether all ranks see a number
    of one share that is not finite."""
    with process_group("cpu") as ranks:
        task = task_of("mae")
        layout = Layout(task, ranks, OPTIM, TrainOptions(shard="fsdp"))
        tensors = optimizer_tensors(build_optimizer(task, OPTIM))
        moments = [tensor for name, tensor in tensors.items() if not name.endswith(".step")]
        weights, moved = (sum(own_share(t).nbytes for t in part) for part in (task.parameters(), moments))
        before = layout.finite()
        if not ranks.main:
            own_share(next(iter(task.encoder.vit.blocks[1].parameters()))).data[0] = torch.nan
        return {"weights": weights, "moments": moved, "finite": [before, layout.finite()]}


def gathered() -> bool:
    """Whether what rank 0 puts together are its own first weights, though those of others were not the same,
    and a buffer and a mode that were set after weights were cut."""
    with process_group("cpu") as ranks:
        task, buffer = task_of("mae"), torch.full((), 1.0 + ranks.rank)
        task.register_buffer("centre", torch.zeros(()))
        for parameter in task.parameters():
            parameter.data += ranks.rank
        layout = Layout(task, ranks, OPTIM, TrainOptions(shard="fsdp"))
        task.centre = buffer
        task.encoder.eval()
        with layout.whole() as whole:
            found, expected = dict(whole.named_parameters()), dict(task_of("mae").named_parameters())
            return not ranks.main or (
                whole.centre is buffer
                and whole.training
                and not whole.encoder.training
                and found.keys() == expected.keys()
                and all(torch.equal(found[name], expected[name]) for name in expected)
            )


def go_on(folders: Sequence[tuple[Path, str]]) -> None:
    """On each rank: go on with runs of the task "mae" in another way than they were begun."""
    with process_group("cpu"):
        for folder, shard in folders:
            train(folder, "mae", shard, resume=True)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def pretrain_both(folder: Path) -> None:
    """On each rank: a run with all that is measured and drawn beside it, with whole weights and with shares."""
    with process_group("cpu"):
        for shard in ("none", "fsdp"):
            lamina.pretrain(
                "sample:photos?crop=16&most=4",
                folder / shard,
                "mae-small",
                options=TINY_NETWORK
                | {"train.log_every_steps": 1, "train.shard": shard, "train.device": "cpu"},
                image_size=16,
                patch_size=4,
                batch_size=16,
                workers=0,
                max_steps=3,
            )
