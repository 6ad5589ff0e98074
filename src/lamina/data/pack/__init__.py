"""Packs: the images of any source, shrunk once, in one large file (`lamina data pack`)."""
