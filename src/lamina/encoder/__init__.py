"""A timm ViT that sees only a part of the image and hands out the layers it is asked for."""
