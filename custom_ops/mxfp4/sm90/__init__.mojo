"""Hopper kernels: matmuls with weights decoded in registers, multiplied by wgmma or mma, and decode attention."""
