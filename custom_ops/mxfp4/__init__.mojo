"""MXFP4 mixture-of-experts kernels for MAX.

The format: 32 consecutive elements of the reduced axis share one scale. A byte holds two E2M1 codes, the earlier
element in the low nibble; a group is 16 such bytes. The scale is one E8M0 byte s, 2^(s - 127), 255 is NaN.
value = e2m1(code) * 2^(s - 127). Source: OCP Microscaling Formats (MX) v1.0.

The package, imports pointing one way (left knows nothing of right):
`format` <- {`decode`, `encode`, `layouts`} <- {`cpu`, `gpu`, `sm90`, `moe`} <- `ops`.
`format` holds the constants, `decode` turns bits into floats and `encode` floats into bits, `layouts` says where things
lie, `cpu` multiplies and attends on a CPU and `sm90` on a Hopper GPU, `gpu` has what any GPU runs, `moe` routes rows to
experts and back on a CPU, `ops` registers what a MAX graph calls: it checks shapes and dispatches, and does no
arithmetic. `activations`, `swiglu`, `paged_cache` and `pointers` are what several of them share.
"""
