"""A config against the model's files: what does not fit, before a model is loaded."""
