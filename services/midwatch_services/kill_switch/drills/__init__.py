"""Rehearsals of the halt: planned, run, measured, kept."""
