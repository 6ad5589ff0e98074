"""Which patches are hidden: the same count in every row, drawn from the samples' own keys."""
