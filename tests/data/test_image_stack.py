"""Images that are put into a batch one by one: what `torch.stack` makes of them."""

from __future__ import annotations

import pytest
import torch

from lamina.data.loading.image_stack import ImageStack


def images(n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 4, 5), generator=generator, dtype=torch.uint8) for _ in range(n)]


def test_a_stack_is_that_of_torch_and_keeps_no_image():
    memory, expected = torch.empty(3, 4, 5, dtype=torch.uint8), images(3)
    stack = ImageStack(4)
    for image in expected:
        stack.append(memory.copy_(image).flip(-1) if len(stack) == 1 else memory.copy_(image))
    expected[1] = expected[1].flip(-1)
    assert len(stack) == 3
    assert torch.equal(stack.stacked(), torch.stack(expected))


def test_8_bits_among_floats_become_floats():
    first, second, third = images(3)
    stack = ImageStack(3)
    for image in (first, second.float() / 255, third):
        stack.append(image)
    assert torch.equal(stack.stacked(), torch.stack([first, second, third]).float() / 255)


def test_nothing_is_an_empty_stack_and_other_sizes_are_refused():
    assert ImageStack(3).stacked().shape == (0, 0, 0, 0)
    stack = ImageStack(2)
    stack.append(images(1)[0])
    with pytest.raises(ValueError, match="in one batch"):
        stack.append(images(1)[0][:1])
