"""What a pre-trained encoder is worth: protocols that train from it or test what was trained."""

from __future__ import annotations

from lamina.evaluate.compare.run import CompareOptions, compare
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.fewshot.protocol import FewOptions, evaluate_fewshot
from lamina.evaluate.finetune.protocol import Going, Trained, evaluate_trained
from lamina.evaluate.predictions import Answers, classify
from lamina.evaluate.robustness.protocol import RobustnessOptions, evaluate_robustness
from lamina.evaluate.score import Score, Unfinished, score_file

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
