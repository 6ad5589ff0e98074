"""A trained classifier on corrupted images, and on ImageNet-C, -A, -R and -Sketch."""
