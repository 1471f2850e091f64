"""Text to ids and back: chat templates and tokenizers, with and without transformers."""
