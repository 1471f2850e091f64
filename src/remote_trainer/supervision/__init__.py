"""Watches over a run: its heartbeat, updates that hang, memory and disk."""
