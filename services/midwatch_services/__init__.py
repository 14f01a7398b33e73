"""The services of Midwatch, one folder a concern, and the command line."""
