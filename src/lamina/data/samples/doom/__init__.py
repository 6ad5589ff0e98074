"""`sample:doom`: frames of the free Freedoom maps, with classes of pixels, objects and depth."""
