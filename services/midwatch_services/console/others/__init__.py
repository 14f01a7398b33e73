"""What the console takes from other services, their stores' queries above all: one module a service."""
