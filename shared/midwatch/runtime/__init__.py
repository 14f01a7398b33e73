"""What the services and the command line stand on. Needs the `server` extra."""
