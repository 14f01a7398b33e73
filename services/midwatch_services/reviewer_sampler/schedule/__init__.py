"""How much of each agent is read, and when: the rate and its taper, runs read besides the draw, the hours of a day."""
