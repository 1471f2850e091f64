"""Training: the only package that imports TRL."""
