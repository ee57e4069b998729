"""Hopper kernels: matmuls with weights decoded in registers, multiplied by wgmma or mma, decode attention, and dense
matmuls of few tokens."""
