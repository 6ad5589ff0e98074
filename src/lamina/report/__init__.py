"""One self-contained page for a run, or for several side by side, and the pictures in it."""
