"""The fifteen corruptions of ImageNet-C, generated on any image, and the scores over them."""
