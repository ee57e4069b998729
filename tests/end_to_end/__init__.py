"""The whole model, as its users run it."""
