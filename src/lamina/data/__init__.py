"""Images for training and evaluation: where they come from, how they are read, cropped and batched."""
