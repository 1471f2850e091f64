"""One file per reward. A new reward also needs a line in rewards/registry.py."""
