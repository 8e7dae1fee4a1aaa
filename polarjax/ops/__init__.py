"""Formulas: arrays in, arrays out. No Flax, no config, no files."""
