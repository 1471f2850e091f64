"""The fast path for CPUs: what it replaces and how to switch it off is in README.md here."""
