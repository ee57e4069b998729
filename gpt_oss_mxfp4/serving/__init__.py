"""The serve verb: MAX's server and scheduler, and around them what a server that strangers call needs."""
