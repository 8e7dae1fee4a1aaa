"""Flax Linen modules: they own parameters, call the formulas of `polarjax.ops` and return (output, intermediates)."""
