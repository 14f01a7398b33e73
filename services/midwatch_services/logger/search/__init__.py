"""Finding runs: each is read once it has ended or rests, and its words and marks go into a full-text index."""
