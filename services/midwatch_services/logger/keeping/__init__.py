"""How long the log keeps what it holds, and what must be kept whatever its age."""
