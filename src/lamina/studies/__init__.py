"""Experiments made of everything else: fair pairs, several seeds, one table; each `lamina study NAME`."""
