"""Products of a mini-batch's Hessian with vectors, for any task whose forward(batch) gives {"loss"}.

The graph of the gradient is built once for a mini-batch and walked backwards once for each product, which
costs about as much as a training step's gradient (`benchmarks/hessian.py`).

curvlinops (MIT, alive: 3.0.1 of 2026) is not used. A task fits its form of a model and a criterion by a
short wrapper, and where no layer norm's weight varies both give the same products to rounding. Where one
does, as in any ViT, they differ by some percent (`benchmarks/curvlinops_peer.py`): it takes the gradient by
`jacrev` and that forwards under `vmap`, and torch (2.14) differentiates its batched layer norm wrongly
(pytorch/functorch#534), as `torch.func.hessian` does too. It also builds the graph anew for each product, and
its eigenvalues are those of `scipy.sparse.linalg.eigsh`, which searches one end of the spectrum at a time
where one Krylov space serves both (`lanczos`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lamina.analyze.curvature.attention import TwiceDifferentiable
from lamina.analyze.options import Parameters
from lamina.core.batch import Batch, with_keys
from lamina.core.errors import LaminaError
from lamina.core.frozen import eval_mode
from lamina.core.rng import seed_for
from lamina.encoder.encoder import Encoder
from lamina.train.param_groups import param_groups

_ONCE = ("not implemented", "once_differentiable", "not differentiable")  # what torch says, by its cause


class HessianOperator:
    """v -> H v + weight_decay * v, where H is the Hessian of the task's loss on one batch.

    The loss is taken in evaluation mode, on detached views of the parameters: nothing of the task changes,
    neither weights nor gradients, modes or what it trains. Fused attention has no second derivative: see
    `attention`; timm's `fused_attn` may be either. The gradient's graph is kept. With the sums that a product
    passes along it, that is at most three times what a gradient needs, beside the vectors.

    `weight_decay` is that of an L2 term, weight_decay / 2 |w|^2 over what the optimiser decays; it adds to
    the diagonal. (AdamW's decay is no part of a loss, and a Hessian without it is its own.)

    Args:
        task: a method, `Supervised`, or anyone's module.
        batch: the mini-batch; without keys it gets some, by `seed`, so that masks are drawn once.
        parameters: "encoder" takes what is trained of `task.encoder.vit`, so that methods with other fusions
            and decoders compare; "all" what is trained of the task.
        weight_decay: of the L2 term.
        mixed: the task itself (not its parts) is in training mode: a classifier mixes images and smooths
            labels, by the batch's keys. Drop path and dropout are off in any case.
        seed: of keys, and of torch's generator where a task uses it; its state is put back.

    Raises:
        LaminaError: where there is nothing to derive by, or no finite loss, or no second derivative.
    """

    def __init__(
        self,
        task: nn.Module,
        batch: Batch,
        parameters: Parameters = "encoder",
        weight_decay: float = 0.0,
        mixed: bool = False,
        seed: int = 0,
    ) -> None:
        chosen = chosen_parameters(task, parameters)
        self.names = tuple(chosen)
        self.products = 0
        first = next(iter(chosen.values()))
        self.device, self.dtype = first.device, first.dtype
        if any(p.device != self.device or p.dtype != self.dtype for p in chosen.values()):
            raise LaminaError("parameters lie on several devices or in several dtypes; bring them to one")
        views = {name: p.detach().requires_grad_() for name, p in chosen.items()}
        rest = {name: p.detach() for name, p in task.named_parameters() if name not in views}
        self._views = list(views.values())
        self.n = sum(view.numel() for view in self._views)
        loss = _loss_of(task, {**rest, **views}, with_keys(batch, seed).to(self.device), mixed, seed)
        self.loss = float(loss.detach())
        if not torch.isfinite(loss):
            raise LaminaError(f"the loss of a batch is {self.loss}; look at its images and labels")
        self._gradient = self._derive(loss)
        self._decay = _decayed(task, chosen, weight_decay)

    def __call__(self, v: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The product with a vector over all chosen parameters, in the order of `names`, on their device."""
        self.products += 1
        parts = torch.split(v, [view.numel() for view in self._views])
        shaped = [part.view_as(view) for part, view in zip(parts, self._views, strict=True)]
        # A gradient that does not depend on any parameter has no graph, and adds nothing.
        bent = [(g, u) for g, u in zip(self._gradient, shaped, strict=True) if g.requires_grad]
        if bent:
            outputs, vectors = zip(*bent, strict=True)
            with _second_derivative():
                rows = torch.autograd.grad(
                    outputs,
                    self._views,
                    vectors,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
        else:
            rows = tuple(torch.zeros_like(view) for view in self._views)
        shifted = [h + d * u if d else h for h, d, u in zip(rows, self._decay, shaped, strict=True)]
        return torch.cat([row.reshape(-1) for row in shifted])

    def normal(self, *words: int) -> Float[Tensor, "n"]:
        """Independent normal numbers by a seed: the same on each device."""
        return torch.randn(self.n, generator=_generator(*words)).to(self.device, self.dtype)

    def signs(self, *words: int) -> Float[Tensor, "n"]:
        """Independent signs, -1 or 1 (Rademacher), by a seed: the same on each device."""
        coins = torch.randint(0, 2, (self.n,), generator=_generator(*words))
        return (2 * coins - 1).to(self.device, self.dtype)

    def _derive(self, loss: Tensor) -> tuple[Tensor, ...]:
        if not loss.requires_grad:
            raise LaminaError("the loss does not depend on the chosen parameters; take parameters 'all'")
        return torch.autograd.grad(
            loss, self._views, create_graph=True, allow_unused=True, materialize_grads=True
        )


def chosen_parameters(task: nn.Module, parameters: Parameters) -> dict[str, nn.Parameter]:
    """The parameters by name that a Hessian is over; those that are not trained are left out."""
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    if parameters == "encoder":
        encoder = getattr(task, "encoder", None)
        if not isinstance(encoder, Encoder):
            raise LaminaError(
                f"{type(task).__name__} has no lamina encoder in `.encoder`; take parameters 'all'"
            )
        own = {id(p) for p in encoder.vit.parameters()}
        trained = {name: p for name, p in trained.items() if id(p) in own}
    elif parameters != "all":
        raise LaminaError(f"parameters {parameters!r} are unknown; take 'encoder' or 'all'")
    if not trained:
        raise LaminaError(
            f"nothing is trained of {type(task).__name__}'s parameters ({parameters}); call requires_grad_()"
        )
    return trained


def _loss_of(task: nn.Module, parameters: dict[str, Tensor], batch: Batch, mixed: bool, seed: int) -> Tensor:
    with eval_mode(task), torch.enable_grad(), TwiceDifferentiable():
        task.training = mixed
        with _generator_of_torch(seed, batch.images.device):
            loss: Tensor = functional_call(task, parameters, (batch,))["loss"]
    return loss


def _decayed(task: nn.Module, chosen: dict[str, nn.Parameter], weight_decay: float) -> list[float]:
    """The L2 term's second derivative for each chosen parameter."""
    if weight_decay < 0:
        raise LaminaError(f"weight_decay is {weight_decay}; give 0 or more")
    found = {
        name: float(group["weight_decay"])
        for group in param_groups(task, weight_decay)
        for name in group["names"]
    }
    return [found[name] for name in chosen]


@contextmanager
def _second_derivative() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        sentence = str(error).splitlines()[0]
        if any(words in sentence for words in _ONCE):
            raise LaminaError(
                f"this loss has no second derivative ({sentence}); replace what lacks it"
            ) from error
        raise


@contextmanager
def _generator_of_torch(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators at a seed, and afterwards where they were."""
    cuda = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed_for(seed))  # torch.manual_seed would seed every device
        if cuda:
            torch.cuda.manual_seed_all(seed_for(seed))
        yield


def _generator(*words: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(*words))
