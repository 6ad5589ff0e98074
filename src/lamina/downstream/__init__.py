"""What a pre-trained encoder is worth: protocols that train from it or test what was trained."""

from __future__ import annotations

from lamina.downstream.classifying import Answers, classify
from lamina.downstream.fewshot import FewOptions, evaluate_fewshot
from lamina.downstream.score import Score, Unfinished, score_file
from lamina.downstream.training import Going, Trained, evaluate_trained

__all__ = [
    "Answers",
    "FewOptions",
    "Going",
    "Score",
    "Trained",
    "Unfinished",
    "classify",
    "evaluate_fewshot",
    "evaluate_trained",
    "score_file",
]
