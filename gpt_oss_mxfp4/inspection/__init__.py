"""The inspect verb: what a checkpoint is, as facts, as text, and its experts' scales as a picture."""
