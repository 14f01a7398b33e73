"""Watches what every run spends and whether it goes in circles; emits alerts, and halts the runs that go too far."""
