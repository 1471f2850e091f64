"""What trains, scores and samples: one protocol, and an engine for each library."""
