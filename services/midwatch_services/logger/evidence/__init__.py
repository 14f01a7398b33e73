"""The proof that the log is as it was written: a hash for each event, chained by agent, signed, kept elsewhere."""
