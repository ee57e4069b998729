"""What needs a GPU: opt-in by MXFP4_GPU_TESTS=1, on a host that has MAX's runtime, NumPy and pytest."""
