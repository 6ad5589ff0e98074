"""Frozen features: computed once per image, kept, and read by kNN and by a linear probe."""
