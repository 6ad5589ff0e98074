"""Losses against closed forms, and their precision under autocast."""

import math

import pytest
import torch

from lamina.losses import build_loss


def test_mse_and_l1_are_means_over_a_patch():
    prediction = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 4.0], [0.0, 3.0]]])
    assert build_loss("mse")(prediction, target).tolist() == [[2.5, 4.5]]
    assert build_loss("l1")(prediction, target).tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 180])
def test_cosine_knows_the_angle_and_no_length(degrees):
    angle = math.radians(degrees)
    prediction = torch.tensor([[[3.0 * math.cos(angle), 3.0 * math.sin(angle), 0.0]]])
    loss = build_loss("cosine")(prediction, torch.tensor([[[0.5, 0.0, 0.0]]]))
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(2 - 2 * math.cos(angle), abs=1e-6)


def test_cosine_is_the_squared_distance_of_unit_vectors():
    a, b = torch.randn(2, 3, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit_a, unit_b = (t / t.square().sum(-1, keepdim=True).sqrt() for t in (a, b))
    torch.testing.assert_close(build_loss("cosine")(a, b), (unit_a - unit_b).square().sum(-1))


def test_cross_entropy_is_minus_the_log_probability_of_the_id():
    probability = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).repeat(2, 1, 1)
    logits = probability.log() + torch.tensor([3.0, -2.0])[:, None]  # a shift of all logits says nothing
    target = torch.tensor([[0, 1], [2, 2]])
    loss = build_loss("cross_entropy")(logits, target)
    torch.testing.assert_close(loss, -torch.tensor([[0.5, 0.2], [0.25, 0.7]]).log())


@pytest.mark.parametrize("name", ["cosine", "cross_entropy"])
def test_float32_under_autocast(name):
    """A prediction in bfloat16 loses its own precision and no more: sums over K are in float32."""
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randn(2, 3, 4096, generator=generator).bfloat16()
    target = torch.randn(2, 3, 4096, generator=generator)
    if name == "cross_entropy":
        target = target.argmax(-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build_loss(name)(prediction, target)
    exact = build_loss(name)(prediction.double(), target.double() if name == "cosine" else target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "cross_entropy"])
def test_gradients_point_downhill(name):
    prediction = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
    target = torch.tensor([[0, 1, 2], [3, 4, 0]])
    if name == "cosine":
        target = torch.nn.functional.one_hot(target, 5).float()
    before = build_loss(name)(prediction, target)
    before.sum().backward()
    after = build_loss(name)(prediction - 0.1 * prediction.grad, target)
    assert (after < before).all()
