"""Changes of an image that are drawn anew for each sample: crops, flips, colours, a second view."""
