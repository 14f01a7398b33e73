"""Replaces what a card's rules name in the texts of a run, before anything of it is stored."""
