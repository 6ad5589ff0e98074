"""Supervised training: labels in place of a decoder, with MFF between the last block and the head (DeiT)."""
