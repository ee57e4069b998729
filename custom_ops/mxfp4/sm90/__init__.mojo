"""Hopper's kernels: weights decoded in registers, multiplied by wgmma or mma."""
