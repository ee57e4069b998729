"""The chat verb: a conversation in the terminal, with a model in this process or behind a server."""
