"""GPUs by name: how fast their matrix products are at most, and how much memory they have."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.core.config import did_you_mean
from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class GPU:
    """One kind of GPU, by its data sheet.

    Rates are those of dense matrix products: data sheets often print twice as much, for matrices of which
    half the entries are zero.
    """

    name: str
    """As `--gpu` takes it."""
    title: str
    tflops_half: float
    """Peak in bf16 and fp16 with sums in fp32, in TFLOP/s."""
    tflops_fp32: float
    """Peak in fp32 without tensor cores, in TFLOP/s."""
    memory_gb: float
    source: str
    """Where the numbers stand."""
    bf16: bool = True
    """Whether it has bfloat16 arithmetic."""

    def peak(self, precision: str) -> float:
        """Operations per second at most, in a precision of `TrainOptions`; fp32 is multiplied in TF32 where
        the GPU has it, as a training does by default."""
        if precision == "bf16" and not self.bf16:
            raise LaminaError(f"{self.title} has no bfloat16 arithmetic; take --precision fp16")
        tf32 = self.tflops_half / 2 if self.bf16 else 0.0  # kinds with bf16 have TF32 too, at half its rate
        return 1e12 * (max(self.tflops_fp32, tf32) if precision == "fp32" else self.tflops_half)

    @property
    def memory(self) -> float:
        """Bytes."""
        return 1e9 * self.memory_gb


GPUS = (
    GPU("a100", "A100 SXM 80 GB", 312.0, 19.5, 80, "NVIDIA A100 datasheet, 2021"),
    GPU("h100", "H100 SXM", 989.4, 66.9, 80, "NVIDIA H100 architecture whitepaper, table 3"),
    GPU("h100-pcie", "H100 PCIe", 756.0, 51.2, 80, "NVIDIA H100 architecture whitepaper, table 3"),
    GPU("h200", "H200 SXM", 989.4, 66.9, 141, "NVIDIA H200 datasheet, 2024"),
    GPU("b200", "B200", 2250.0, 75.0, 180, "NVIDIA Blackwell datasheet (HGX B200), 2024"),
    GPU("l4", "L4", 121.0, 30.3, 24, "NVIDIA L4 datasheet, 2023"),
    GPU("l40s", "L40S", 362.0, 91.6, 48, "NVIDIA L40S datasheet, 2023"),
    GPU("4090", "RTX 4090", 165.2, 82.6, 24, "NVIDIA Ada architecture whitepaper, appendix A"),
    GPU("3090", "RTX 3090", 71.0, 35.6, 24, "NVIDIA Ampere GA102 whitepaper, appendix A"),
    GPU("v100", "V100 SXM 32 GB", 125.0, 15.7, 32, "NVIDIA V100 datasheet, 2020", bf16=False),
    GPU("t4", "T4", 65.0, 8.1, 16, "NVIDIA T4 datasheet, 2019", bf16=False),
)
"""In the order of `--help`."""


def gpu(name: str) -> GPU:
    """The GPU of that name; raises with the names there are."""
    found = {each.name: each for each in GPUS}
    if name not in found:
        raise LaminaError(
            f"there is no GPU {name!r} in the table; {did_you_mean(name, found)}choose one of "
            f"{', '.join(found)}"
        )
    return found[name]
