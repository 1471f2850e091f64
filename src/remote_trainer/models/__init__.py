"""Models: found, described by their files, loaded, and put into modes."""
