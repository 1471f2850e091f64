"""llama.cpp: its converter, its server, and how an exported file is read with them."""
