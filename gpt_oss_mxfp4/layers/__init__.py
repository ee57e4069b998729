"""The graph's layers: attributes carry the checkpoint's own names, so a weight's path is its tensor's name."""
