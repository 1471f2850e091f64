"""Several workers through Ray Train, and runs on other machines through Ray Jobs."""
