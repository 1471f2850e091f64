"""One reward a file. A new one is a file here and a line in rewards/registry.py."""
