"""Sets money aside for calls before they are made; answers once that is saved."""
