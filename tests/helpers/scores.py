"""Scores as evaluations write them."""

from dataclasses import replace

from lamina.evaluate.score import Score


def score(value: float, seed: int = 0, protocol: str = "knn", metric: str = "top1", interval=None) -> Score:
    return Score(protocol, "runs/x", 1, "photos", metric, value, interval, 100, 50, seed)


def tuned(value: float, seed: int = 0, variant: str = "finetune-s, 100 epochs", **changed) -> Score:
    return replace(score(value, seed, "finetune"), variant=variant, **changed)
