"""Matrix multiplication on a CPU, straight from packed weights.

One pair of kernels serves every weight format. `words` says what the vector unit multiplies: 32-bit words that hold
two bfloat16 or one float32. `weights` turns packed rows into such words, a chunk at a time, in registers. `pack` puts
activations in the same order. `dot` is for few rows, limited by reading the weights once; `tile` for many, limited by
arithmetic. `grouped_matmul` cuts the work into threads and picks between the two; `epilogue` finishes the outputs.
"""
