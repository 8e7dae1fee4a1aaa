"""Runs that answer a question: read from a file, trained one after the other, reported together."""
