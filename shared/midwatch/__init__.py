"""The operations layer for AI agents: publish run events, obey the switch."""
