"""What is installed and works here, and what to do about the rest."""
