"""The log, or a part of it, as a folder of files, and back."""
