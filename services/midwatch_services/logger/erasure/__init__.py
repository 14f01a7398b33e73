"""Erases one customer from the log and from all that speaks of its runs, and proves it."""
