"""Kernels for any GPU: routing, dequantizing, packing, and a plain grouped matmul on the checkpoint's own layout.

Each file has a kernel and the function that puts it on a device's stream; `overlap` has what lets one begin early.
"""
