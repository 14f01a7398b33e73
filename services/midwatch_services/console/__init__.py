"""The console: what a person looks at. It shows what the other services keep, and acts over the bus alone."""
