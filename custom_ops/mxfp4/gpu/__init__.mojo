"""Kernels for any GPU: routing, dequantizing, packing, and a plain grouped matmul on the checkpoint's own layout.

Each file has a kernel and the function that enqueues it on a device's stream; `overlap` lets kernels begin early.
"""
