"""Several models by several protocols and seeds, in one table."""
