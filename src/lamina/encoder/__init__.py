"""A timm ViT that reads only a part of the image and returns the outputs of the requested blocks."""
