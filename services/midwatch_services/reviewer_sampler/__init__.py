"""Watches runs begin and draws a share of them for people to read, before their output is known; emits `sampled`."""
