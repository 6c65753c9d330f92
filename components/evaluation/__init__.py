"""Evaluation: metrics, curves, galleries and the leaderboard."""

from components.evaluation.settings import EvaluationSettings

__all__ = ["EvaluationSettings"]
