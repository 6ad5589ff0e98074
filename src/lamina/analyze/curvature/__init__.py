"""The Hessian of a loss by its products with vectors: ends of its spectrum, trace, density."""
