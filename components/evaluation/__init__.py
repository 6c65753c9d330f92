"""Evaluation: metrics, curves, galleries and the leaderboard."""
