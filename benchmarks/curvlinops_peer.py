"""Products of the Hessian beside those of curvlinops, and both beside forward over reverse written out.

    pip install curvlinops-for-pytorch
    python benchmarks/curvlinops_peer.py          # ViT-Ti/16 at 224 px as initialised, batch 1, float64
    python benchmarks/curvlinops_peer.py --small  # the tests' ViT, and both ends of its spectrum

Printed is the largest difference over the largest entry, over all parameters of the encoder and then over all
but the norms' weights; and how long a product of curvlinops takes, in turns with ours.
"""

from __future__ import annotations

import argparse
import statistics
import time

import timm
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import lamina
from lamina.analyze.curvature.lanczos import extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.core.batch import Batch
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions


class Loss(nn.Module):
    """A task as curvlinops' model: its loss, of images that it is given."""

    def __init__(self, task: nn.Module, keys: Tensor) -> None:
        super().__init__()
        self.task, self.keys = task, keys

    def forward(self, images: Tensor) -> Tensor:
        """The loss of one mini-batch, in a row of its own."""
        loss: Tensor = self.task(Batch(images, self.keys))["loss"]
        return loss.reshape(1, 1)


class Given(nn.Module):
    """A criterion that hands on what the model says."""

    reduction = "mean"

    def forward(self, said: Tensor, _: Tensor) -> Tensor:
        """The mean."""
        return said.mean()


def tasks(small: bool) -> tuple[nn.Module, Batch]:
    """A network with torch's plain attention, in float64, and images."""
    torch.manual_seed(0)
    timm.layers.set_fused_attn(False)
    if small:
        sizes = {"image_size": (8, 8), "patch_size": 4, "width": 8, "depth": 1, "heads": 2, "in_chans": 1}
        task = lamina.mae(
            build_vit(EncoderOptions(**sizes)), None, 0.5, decoder_width=8, decoder_depth=1, decoder_heads=2
        )
        return task.double().eval(), Batch(torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.arange(3))
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    lamina.init_vit_mae(vit)
    images = torch.rand(1, 3, 224, 224, dtype=torch.float64)
    return lamina.mae(vit, None, 0.75, 512, 8, 16).double().eval(), Batch(images, torch.arange(1))


def written_out(task: nn.Module, batch: Batch, names: tuple[str, ...], v: Tensor) -> Tensor:
    """Forward over reverse of the loss, without vmap."""
    everything = {name: p.detach() for name, p in task.named_parameters()}
    chosen = {name: everything[name] for name in names}
    parts = torch.split(v, [p.numel() for p in chosen.values()])
    along = {name: part.view_as(chosen[name]) for name, part in zip(names, parts, strict=True)}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(task, {**everything, **parameters}, (batch,))["loss"]
        return found

    _, product = jvp(grad(loss), (chosen,), (along,))
    return torch.cat([product[name].reshape(-1) for name in names])


def compare(task: nn.Module, batch: Batch, ends: bool) -> None:
    """Print differences, times and, on request, both ends of the spectrum."""
    ours = HessianOperator(task, batch)
    named = dict(task.named_parameters())
    data = [(batch.images, torch.zeros(1, 1, dtype=torch.float64))]
    chosen = [named[name] for name in ours.names]
    theirs = HessianLinearOperator(
        Loss(task, batch.keys),
        Given(),
        chosen,
        data,
        check_deterministic=False,
        num_data=1,
        batch_size_fn=lambda _: 1,
    )
    v = ours.normal(0).double()
    truth = written_out(task, batch, ours.names, v)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for i, product in enumerate((ours, lambda u: theirs @ u)):
            started = time.perf_counter()
            found = product(v)
            times[i].append(time.perf_counter() - started)
            if len(times[i]) == 1:
                apart = float((found - truth).abs().max() / truth.abs().max())
                print(f"  {('ours', 'curvlinops')[i]}: {apart:.1e} from forward over reverse", flush=True)
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    print(f"  a product of curvlinops takes {ratio:.2f} times as long as ours")
    if ends:
        top, bottom = extremes(ours, ours.normal(1), lambda i: ours.normal(2, i), 5, 1, 1e-10, 2000)
        scipys = theirs.to_scipy()
        high = sorted(eigsh(scipys, 5, which="LA")[0], reverse=True)
        low = eigsh(scipys, 1, which="SA")[0][0]
        pairs = zip([e.value for e in (*top, *bottom)], [*high, low], strict=True)
        print(f"  both ends, largest difference: {max(abs(a - b) / abs(b) for a, b in pairs):.1e} of a value")


def main() -> None:
    """Over all parameters, then with the norms' weights held fixed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    task, batch = tasks(asked.small)
    print(f"torch {torch.__version__}; all parameters of the encoder", flush=True)
    with sdpa_kernel(SDPBackend.MATH):  # the only attention with a forward derivative
        compare(task, batch, False)
    for module in task.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.requires_grad_(False)
    print("norms' weights held fixed", flush=True)
    with sdpa_kernel(SDPBackend.MATH):
        compare(task, batch, asked.small)


if __name__ == "__main__":
    main()
