"""Given ids: their log-probs. Given prompts: completions. Every way a forward pass is made."""
