"""Data sets that come with packages, for trials without data of one's own."""
