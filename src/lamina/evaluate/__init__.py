"""Evaluation of a pre-trained encoder: protocols that train from it or test what was trained."""
