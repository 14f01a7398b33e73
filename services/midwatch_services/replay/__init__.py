"""Published run files, published again as run events: formats are read, mapped to steps, and played through the SDK."""
