"""The commands, one module a noun; each is registered by `midwatch_services.cli`."""
