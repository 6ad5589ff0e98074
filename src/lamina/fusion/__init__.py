"""Which layers the decoder reads, and how they are mixed.

Fusion sits between the last block and the final norm, outside the encoder, so that the encoder's weights
stay those of a plain ViT. A fusion says with `n_latents` how many latents it gives (one is a tensor, several
are a list) and with `uses_norm` whether the encoder's final norm is part of them: where it is not, the norm
gets no gradient.
"""
