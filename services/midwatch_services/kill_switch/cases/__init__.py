"""Who sees to the customers of stopped runs: the router, the queue for people, the help desk."""
