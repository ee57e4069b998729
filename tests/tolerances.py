"""Every bound that a test compares floats with, each with its reason.

Packing, decoding, layouts, routing's choice and grouping are exact and have no bound here. Errors are
those of `tests.measure`: of ops as shares of the wanted array's root mean square, of logits as shares
of their range.
"""

from tests.measure import LogitError, RelativeError

MATMUL = RelativeError(maximum=5e-5, rms=5e-6)
"""A float32 sum of 2880 products in the worst order, one after the other: 8e-6 and 9e-7 (RUN); x 5.

It holds for bfloat16 activations too, as the reference rounds the same inputs the same way, and a
product of a bfloat16 and an E2M1 number times a power of two is exact in float32.
"""

MATMUL_SWIGLU = RelativeError(maximum=1e-4, rms=7e-6)
"""As `MATMUL`; SwiGLU squares the largest elements, and their errors with them: 2e-5, 1.3e-6 (RUN)."""

ROUTING_WEIGHTS = RelativeError(maximum=1e-5, rms=1e-6)
"""exp of float32 logits below 32: a logit's own rounding, 2^-20, is the relative error of its exp."""

PAGED_ATTENTION = RelativeError(maximum=5e-5, rms=3e-6)
"""Scores reach 100, where float32 steps by 2^-17, and an exp errs as much as its score: 1.2e-5, 6e-7
(RUN); x 5."""

PAGED_ATTENTION_BFLOAT16 = RelativeError(maximum=2e-2, rms=2e-3)
"""The same in bfloat16: q, k and v are rounded alike, exponentials by 2^-9 at most, here and there as shares of another
largest: 8e-3 and 3e-4 (RUN); x 2.5, and the rms x 6, as CPUs without vdpbf16ps do not round those: 5e-4."""

REFERENCE_LOGITS = LogitError(maximum=2e-5, mean=2e-6, top1=1.0)
"""The float64 reference against transformers in float32, whose angles are rounded to 2^-12 radians at
position 4200: 6e-7 up to 200 tokens, 2e-5 at worst of all positions of 4200 (RUN)."""

LOGITS_FLOAT32 = LogitError(maximum=2e-4, mean=2e-5, top1=1.0)
"""Our model with float32 activations against transformers in float32: the project's promise. What is
wrong in one part, even slightly, moves logits by 2e-3 and more (`tests/reference/test_model.py`)."""

SAME_MODEL = LogitError(maximum=2e-5, mean=2e-6, top1=1.0)
"""The same float32 sums in another order: one prefill and token by token take different kernels."""

STAGE = RelativeError(maximum=5e-5, rms=5e-6)
"""A stage of one of four layers in float32, after all stages before it: 8e-6 and 8e-7 at worst (RUN); x 6."""

SAME_MODEL_ROUNDED = LogitError(maximum=6e-2, mean=4e-4, top1=0.99)
"""As `SAME_MODEL` with bfloat16 activations: a last-bit difference may tip one to the next bfloat16, which moves a
logit by as much as rounding does, 2e-3 and 3e-4 in the mean, or another expert is chosen: 3e-2 at one of 200 positions,
where the fourth and the fifth are 0.15% of the router's range apart (RUN); x 2, and the mean x 1.3."""

ROUNDED_SLACK = 1.5
"""Which way an activation near a tie is rounded is a matter of float32 errors: 1.02 was seen (RUN)."""

ROUNDED_TIES = 0.01
"""Share of positions at which such an error may decide between two tokens: 1 of 200 was seen (RUN)."""

LLAMA_CPP = LogitError(maximum=0.25, mean=4e-3, top1=0.9)
"""llama.cpp, which rounds activations to 8 bits, on the golden checkpoint: 0.13, 0.0017 and 0.99 with BF16 dense
weights, 0.05, 0.002 and 0.99 with Q8_0 (RUN); x 2, as near ties of experts depend on its build. With nibbles in the
checkpoint's order it is 0.6, 0.1 and 0.09."""
