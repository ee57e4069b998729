"""How the demo model is made: what it is asked, how it reads, how its weights are rounded."""
