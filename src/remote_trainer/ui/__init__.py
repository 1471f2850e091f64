"""A local page over run folders: lists runs, shows live curves and reports. Only reads."""
