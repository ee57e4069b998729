"""Matrix multiplication on a CPU, straight from packed weights.

One pair of kernels serves every weight format. `words` says what the vector unit multiplies: 32-bit words that hold
one float32, two bfloat16 or four int8. A `WeightRows` (`weights`) turns packed rows into such words, a chunk at a time,
in registers: `mxfp4_rows`, `bf16_rows`, `byte_rows`. `pack` puts activations in the same order. `dot` is for few rows,
limited by reading the weights once; `tile` for many, limited by arithmetic. `grouped_matmul` cuts the work into blocks
that threads take in turn and picks between the two; `epilogue` finishes the outputs.
"""
