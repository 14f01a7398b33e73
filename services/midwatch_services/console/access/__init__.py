"""Who may see and do what on the console, and the record of what they did."""
