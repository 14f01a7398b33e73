"""The eval set: cases made from real runs, replayed against an agent before a change of it ships, and the gate."""
