"""Evaluation: how good the networks are, and for whom."""
