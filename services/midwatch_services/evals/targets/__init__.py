"""What a case is replayed against: a function, a server, an agent on the bus, or runs that already happened."""
