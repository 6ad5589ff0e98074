"""Images with a class for each pixel, or with objects."""
