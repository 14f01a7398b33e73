"""The language between processes, as msgspec structs. Nothing here does I/O."""
