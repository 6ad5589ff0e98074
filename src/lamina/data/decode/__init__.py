"""From a file to the pixels of an image, without a silent change of value."""
