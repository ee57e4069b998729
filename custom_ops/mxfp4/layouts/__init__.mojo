"""Memory layouts: every index formula of the packed weights and of the tensor core's operands, and nothing else."""
