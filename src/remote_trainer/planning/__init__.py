"""What a run will take, before it starts: updates and memory."""
