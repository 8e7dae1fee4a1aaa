"""Checks whether a machine and its data can train: python -m polarjax.doctor."""
