"""The stages of each command in order; the only room that knows the order."""
