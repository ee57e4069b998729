"""The ops of a MAX graph. An op checks shapes, picks the target's kernel and calls it; it does no arithmetic."""
