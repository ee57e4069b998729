"""The MXFP4 format's constants, as ``custom_ops/mxfp4/format.mojo`` has them (a test pins the two equal).

Nibble order: a byte holds two E2M1 codes, the earlier element in the low nibble. GGUF's MXFP4 orders nibbles
and biases scales differently. Source: OCP Microscaling Formats (MX) v1.0.
"""

GROUP_SIZE = 32
"""Elements that share one scale, along the reduced axis."""

BYTES_PER_GROUP = 16
"""Bytes of E2M1 codes in a group."""

E8M0_BIAS = 127
"""A scale byte s means 2^(s - 127)."""

E8M0_NAN = 255
"""The one scale byte that is not a number."""

E2M1_VALUES = (
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
    -0.0,
    -0.5,
    -1.0,
    -1.5,
    -2.0,
    -3.0,
    -4.0,
    -6.0,
)
"""Value of each 4-bit code ``s e1 e0 m``."""

PACKED_TILE = 64
"""Rows, and elements of a row, of a tile of weights packed for Hopper."""

PACKED_TILE_BYTES = PACKED_TILE * PACKED_TILE * (4 * GROUP_SIZE + 8) // (8 * GROUP_SIZE)
"""Bytes of a tile: 4 bits a code, 8 bits a group's scale."""

MAX_PACKED_SCALE = 128
"""The largest scale byte that weights packed for Hopper can have: 2^(128 - 127) = 2."""

MAX_PACKED_EXPERTS = 510
"""The most experts of a layer that Hopper's kernels take."""
