"""Estimates before a run: updates, memory and disk space."""
