"""Experiments made of everything else: fair pairs, several seeds, one table; each `lamina study NAME`."""

from __future__ import annotations

from lamina.studies.feature_bias import feature_bias
from lamina.studies.fusion import fusion
from lamina.studies.options import StudyOptions
from lamina.studies.pair import pair
from lamina.studies.run import StudyRun, run_study

__all__ = ["StudyOptions", "StudyRun", "feature_bias", "fusion", "pair", "run_study"]
