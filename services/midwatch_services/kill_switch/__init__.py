"""Watches the switch, the instances and run events; says what was halted and resumed, and proves or disproves it."""
