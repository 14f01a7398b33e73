"""Gives runs to people to judge, one person at a time, and says what stands once enough of them have judged blind."""
