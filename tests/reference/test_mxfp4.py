"""The reference's number format against OCP MX v1.0, written out a second time by hand."""

import math

import numpy as np
import pytest

from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16, round_to_bfloat16
from tests.reference.mxfp4 import (
    BYTES_PER_GROUP,
    E2M1_VALUES,
    GROUP_SIZE,
    decode_e2m1,
    decode_e8m0,
    dequantize,
    encode_e2m1,
    pack,
    quantize,
    unpack,
)


def e2m1_by_definition(code: int) -> float:
    """OCP MX v1.0, section 5.3.3: one sign, two exponent bits of bias 1, one mantissa bit."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    subnormal = exponent == 0
    magnitude = mantissa / 2 if subnormal else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return math.copysign(magnitude, -1.0 if sign else 1.0)


def test_table_follows_definition():
    want = [e2m1_by_definition(code) for code in range(16)]
    assert E2M1_VALUES.tolist() == want
    assert np.signbit(E2M1_VALUES).tolist() == [code >= 8 for code in range(16)]


def test_every_code_under_every_scale():
    codes = np.tile(np.arange(16), 2)  # one group holds every code twice
    blocks = np.broadcast_to(pack(codes), (256, 1, BYTES_PER_GROUP))
    got = dequantize(blocks, np.arange(256)[:, None])
    for s in range(255):
        want = [e2m1_by_definition(code) * 2.0 ** (s - 127) for code in codes]
        assert got[s].tolist() == want
        assert np.signbit(got[s]).tolist() == [code >= 8 for code in codes]
    assert np.isnan(got[255]).all()


def test_scale_0_is_the_smallest_power_and_254_the_largest():
    assert decode_e8m0([0, 126, 127, 128, 254]).tolist() == [2.0**-127, 0.5, 1.0, 2.0, 2.0**127]


def test_scale_255_decodes_to_nan():
    assert np.isnan(decode_e8m0(255))


def test_earlier_element_lies_in_low_nibble():
    assert pack([1, 2, 15, 0]).tolist() == [0x21, 0x0F]
    assert unpack([0x21, 0x0F]).tolist() == [1, 2, 15, 0]


def test_worked_block():
    # Bytes 0x10 0x32 0x54 0x76 hold codes 0..7, 0x98 .. 0xFE codes 8..15; scale 128 doubles them.
    half = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    got = dequantize(np.array([half + half], np.uint8), np.array([128]))
    magnitudes = [0, 1, 2, 3, 4, 6, 8, 12]
    assert got.tolist() == 2 * (magnitudes + [-m for m in magnitudes])


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (0.25, 0.0),  # ties go to the code with mantissa bit 0
        (0.75, 1.0),
        (1.25, 1.0),
        (1.75, 2.0),
        (2.5, 2.0),
        (3.5, 4.0),
        (5.0, 4.0),
        (0.2500001, 0.5),
        (5.0000001, 6.0),
        (6.9, 6.0),  # saturates
        (1e30, 6.0),
    ],
)
def test_encode_rounds_to_nearest_even(value, want):
    assert decode_e2m1(encode_e2m1(value)) == want
    assert decode_e2m1(encode_e2m1(-value)) == -want


def test_encode_keeps_the_sign_of_zero():
    assert encode_e2m1([0.0, -0.0, -0.1]).tolist() == [0, 8, 8]


def test_quantize_worked_group():
    # amax 7.5: floor(log2) = 2, shared exponent 0. 7.5 saturates to 6; 0.2 rounds down to 0.
    x = np.zeros(GROUP_SIZE)
    x[:4] = [7.5, -1.0, 0.2, 3.0]
    blocks, scales = quantize(x)
    assert scales.tolist() == [127]
    assert blocks[0, :3].tolist() == [0xA7, 0x50, 0x00]
    assert dequantize(blocks, scales)[:4].tolist() == [6.0, -1.0, 0.0, 3.0]


@pytest.mark.parametrize("exponent", [-125, -60, -1, 0, 1, 60, 127])
def test_quantize_keeps_representable_groups(exponent):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (5, 3, GROUP_SIZE))
    codes[..., 0] = rng.choice([6, 7, 14, 15], (5, 3))  # the largest is 4 or 6: its scale is unique
    x = np.ldexp(decode_e2m1(codes), exponent).reshape(5, 3 * GROUP_SIZE)
    blocks, scales = quantize(x)
    assert (scales == exponent + 127).all()
    assert np.array_equal(unpack(blocks), codes)
    assert np.array_equal(dequantize(blocks, scales), x)


def test_quantize_is_within_half_a_step_below_saturation():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4 * GROUP_SIZE))
    blocks, scales = quantize(x)
    scale = decode_e8m0(scales).repeat(GROUP_SIZE, axis=-1)
    error = np.abs(dequantize(blocks, scales) - x) / scale
    saturated = np.abs(x) > 6 * scale
    assert error[~saturated].max() <= 1.0  # half the step between 4 and 6
    assert error[saturated].max() < 2.0  # 8 is never reached
    assert 0 < saturated.mean() < 0.1


def test_quantize_clamps_the_shared_exponent():
    x = np.zeros((3, GROUP_SIZE))
    x[0, 0] = 2.0**200  # shared exponent 198 becomes 127; the element saturates
    x[1, 0] = 2.0**-128  # shared exponent -130 becomes -127; the element is half of its scale
    blocks, scales = quantize(x)
    assert scales.tolist() == [[254], [0], [0]]
    assert dequantize(blocks, scales)[:, 0].tolist() == [6 * 2.0**127, 2.0**-128, 0.0]


def test_quantize_marks_groups_that_are_not_finite():
    x = np.ones((3, GROUP_SIZE))
    x[0, 7], x[1, 7] = np.nan, -np.inf
    blocks, scales = quantize(x)
    assert scales.tolist() == [[255], [255], [125]]
    assert np.isnan(dequantize(blocks, scales)[:2]).all()


def test_bfloat16_rounds_to_nearest_even():
    bits = encode_bfloat16([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 3.4e38])
    assert [hex(b) for b in bits] == ["0x3f80", "0x3f80", "0x3f82", "0x3f81", "0x8000", "0x7f80"]
    assert np.isnan(round_to_bfloat16(np.uint32(0x7FFFFFFF).view(np.float32)))


def test_bfloat16_round_trip_of_every_code():
    bits = np.arange(1 << 16).astype(np.uint16)
    values = decode_bfloat16(bits)
    numbers = ~np.isnan(values)
    assert np.array_equal(encode_bfloat16(values[numbers]), bits[numbers])
    assert np.isnan(decode_bfloat16(encode_bfloat16(values[~numbers]))).all()
