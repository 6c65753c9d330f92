"""Evaluation: metrics, curves, galleries and the leaderboard."""

from components.evaluation.component import EvaluationSettings, evaluate

__all__ = ["EvaluationSettings", "evaluate"]
