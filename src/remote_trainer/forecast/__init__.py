"""What a run will do, said before it: from its settings alone, or from a few probed updates."""
