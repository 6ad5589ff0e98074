"""Training any module whose forward(batch) returns {"loss": ...}: loop, optimiser, checkpoints."""
