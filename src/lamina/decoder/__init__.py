"""From what the encoder saw to a prediction for the patches that were hidden.

A decoder says with `takes` whether it reads the visible patches or all of them, and with `n_latents` how
many latents: one is a tensor, several are a list.
"""
