"""The whole of it in half a minute: an agent, a ticket that loops, a halt with its proof, all seen from outside."""
