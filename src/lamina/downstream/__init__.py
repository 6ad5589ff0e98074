"""What a pre-trained encoder is worth: protocols that train from it or test what was trained."""

from __future__ import annotations

from lamina.downstream.classifying import Answers, classify
from lamina.downstream.comparing import CompareOptions, compare
from lamina.downstream.comparison import Comparison
from lamina.downstream.fewshot import FewOptions, evaluate_fewshot
from lamina.downstream.robustness import RobustnessOptions, evaluate_robustness
from lamina.downstream.score import Score, Unfinished, score_file
from lamina.downstream.training import Going, Trained, evaluate_trained

__all__ = [
    "Answers",
    "CompareOptions",
    "Comparison",
    "FewOptions",
    "Going",
    "RobustnessOptions",
    "Score",
    "Trained",
    "Unfinished",
    "classify",
    "compare",
    "evaluate_fewshot",
    "evaluate_robustness",
    "evaluate_trained",
    "score_file",
]
