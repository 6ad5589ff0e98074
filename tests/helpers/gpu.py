"""Tests that need a GPU: `pytest -m cuda` runs them; without a GPU they are skipped with this reason."""

from __future__ import annotations

import pytest
import torch

NEEDS_GPU = (
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="it needs an NVIDIA GPU, and torch sees none (docs/gpu.md)"
    ),
)
CUDA = pytest.param("cuda", marks=NEEDS_GPU)
DEVICES = ["cpu", CUDA]
"""For tests whose CPU case shows that the test itself is right."""
