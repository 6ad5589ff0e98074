"""Measures that analyses are made of: arithmetic on tokens, without models or files."""
