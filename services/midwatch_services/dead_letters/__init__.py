"""Dead letters, read and published again. Watches nothing: `midwatch dead` asks it."""
