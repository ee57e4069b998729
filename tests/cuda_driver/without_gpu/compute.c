// What computes in registers.
#include "ptx.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Runs a statement for each lane; where all lanes are active the compiler may take several at once.
#define EACH(statement)                                                                                                \
    do {                                                                                                               \
        if (mask == ALL)                                                                                               \
            for (int i = 0; i < LANES; i++) {                                                                          \
                statement;                                                                                             \
            }                                                                                                          \
        else                                                                                                           \
            for (int i = 0; i < LANES; i++)                                                                            \
                if (mask >> i & 1) {                                                                                   \
                    statement;                                                                                         \
                }                                                                                                      \
    } while (0)

#define OPERANDS                                                                                                       \
    uint64_t *d = operand(warp, in, 0);                                                                                \
    const uint64_t *A = operand(warp, in, in->count > 1), *B = operand(warp, in, in->count > 2 ? 2 : 0),               \
                   *C = operand(warp, in, in->count > 3 ? 3 : 0);                                                      \
    (void)A, (void)B, (void)C, (void)d

#define INTEGER(type_name, U, expression)                                                                              \
    EACH(typedef type_name T; T a = (T)A[i]; T b = (T)B[i]; T c = (T)C[i]; (void)a; (void)b; (void)c; d[i] = (U)(expression))
#define FLOAT(expression)                                                                                              \
    EACH(float a = to_float(A[i]); float b = to_float(B[i]); float c = to_float(C[i]); (void)a; (void)b; (void)c;      \
         d[i] = of_float(expression))
#define DOUBLE(expression)                                                                                             \
    EACH(double a = to_double(A[i]); double b = to_double(B[i]); double c = to_double(C[i]); (void)a; (void)b;         \
         (void)c; d[i] = of_double(expression))
#define BFLOAT(shift, expression)                                                                                      \
    EACH(float a = to_float_of_bf16(A[i] >> shift); float b = to_float_of_bf16(B[i] >> shift);                         \
         float c = to_float_of_bf16(C[i] >> shift); (void)a; (void)b; (void)c;                                         \
         half[i] |= (uint64_t)of_bf16(expression) << shift)

#define INTEGER_CASES(expression)                                                                                      \
    case U8: case U16: INTEGER(uint16_t, uint16_t, expression); return;                                                \
    case S8: case S16: INTEGER(int16_t, uint16_t, expression); return;                                                 \
    case U32: INTEGER(uint32_t, uint32_t, expression); return;                                                         \
    case S32: INTEGER(int32_t, uint32_t, expression); return;                                                          \
    case U64: INTEGER(uint64_t, uint64_t, expression); return;                                                         \
    case S64: INTEGER(int64_t, uint64_t, expression); return;

#define FLOAT_CASES(expression)                                                                                        \
    case F32: FLOAT(expression); return;                                                                               \
    case F64: DOUBLE(expression); return;                                                                              \
    case BF16X2: BFLOAT(16, expression); /* fall through */                                                            \
    case BF16: BFLOAT(0, expression); EACH(d[i] = half[i]); return;

#define ARITHMETIC(name, of_integers, of_floats)                                                                       \
    OPERATION(name)                                                                                                    \
    {                                                                                                                  \
        OPERANDS;                                                                                                      \
        uint64_t half[LANES] = {0};                                                                                    \
        switch (in->type) {                                                                                            \
            INTEGER_CASES(of_integers)                                                                                 \
            FLOAT_CASES(of_floats)                                                                                     \
        default: fail(warp, in, "of a type that is not known here");                                                   \
        }                                                                                                              \
    }

#define INTEGERS(name, expression)                                                                                     \
    OPERATION(name)                                                                                                    \
    {                                                                                                                  \
        OPERANDS;                                                                                                      \
        switch (in->type) {                                                                                            \
            INTEGER_CASES(expression)                                                                                  \
        default: fail(warp, in, "of a type that is not known here");                                                   \
        }                                                                                                              \
    }

#define FLOATS(name, expression)                                                                                       \
    OPERATION(name)                                                                                                    \
    {                                                                                                                  \
        OPERANDS;                                                                                                      \
        uint64_t half[LANES] = {0};                                                                                    \
        switch (in->type) {                                                                                            \
            FLOAT_CASES(expression)                                                                                    \
        default: fail(warp, in, "of a type that is not known here");                                                   \
        }                                                                                                              \
    }

#define LEAST(a, b) ((b) < (a) ? (b) : (a))
#define MOST(a, b) ((b) > (a) ? (b) : (a))
#define NAN_OR(a, b, value) ((a) != (a) || (b) != (b) ? NAN : (value))

ARITHMETIC(add, a + b, a + b)
ARITHMETIC(subtract, a - b, a - b)
ARITHMETIC(multiply, a *b, a *b)
ARITHMETIC(negate, -a, -a)
ARITHMETIC(absolute, a < 0 ? -a : a, fabs(a))
ARITHMETIC(minimum, LEAST(a, b), fmin(a, b))
ARITHMETIC(maximum, MOST(a, b), fmax(a, b))
INTEGERS(multiply_add, a *b + c)
INTEGERS(divide, !b ? -1 : b + 1 == 0 && (T)-1 < 0 ? -a : a / b)
INTEGERS(remainder_of, !b ? a : b + 1 == 0 && (T)-1 < 0 ? 0 : a % b)
FLOATS(minimum_or_nan, NAN_OR(a, b, fmin(a, b)))
FLOATS(maximum_or_nan, NAN_OR(a, b, fmax(a, b)))
FLOATS(divide_floats, a / b)
FLOATS(reciprocal, 1 / a)
FLOATS(square_root, sqrt(a))
FLOATS(reciprocal_root, 1 / sqrt(a))
FLOATS(exponential, exp2(a))
FLOATS(logarithm, log2(a))
FLOATS(hyperbolic_tangent, tanh(a))
FLOATS(sine, sin(a))
FLOATS(cosine, cos(a))
FLOATS(copy_sign, copysign(b, a))

// Rounds to the float32 with an odd last bit, where it is not exact: rounding that again is as rounding once.
static float to_odd(double value)
{
    float nearest = (float)value;
    uint32_t bits = of_float(nearest);
    if (nearest == value || value != value)
        return nearest;
    return to_float((fabs(nearest) > fabs(value) ? bits - 1 : bits) | 1);
}

OPERATION(fuse)
{
    OPERANDS;
    uint64_t half[LANES] = {0};
    switch (in->type) {
    case F32: FLOAT(fmaf(a, b, c)); return;
    case F64: DOUBLE(fma(a, b, c)); return;
    // Products of two bfloat16 are exact in float64, and so is their sum with a third, but for what no rounding can tell.
    case BF16X2: BFLOAT(16, to_odd((double)a * b + c)); // fall through
    case BF16: BFLOAT(0, to_odd((double)a * b + c)); EACH(d[i] = half[i]); return;
    default: fail(warp, in, "of a type that is not known here");
    }
}

// Of bits: predicates are those of a byte.
#define BITS(name, expression)                                                                                         \
    OPERATION(name)                                                                                                    \
    {                                                                                                                  \
        OPERANDS;                                                                                                      \
        uint64_t all = in->type == PRED ? 1 : ~0ull >> (64 - 8 * TYPE_BYTES[in->type]);                                \
        EACH(uint64_t a = A[i]; uint64_t b = B[i]; uint64_t c = C[i]; (void)a; (void)b; (void)c;                       \
             d[i] = (expression) & all);                                                                               \
    }

BITS(and_bits, a & b)
BITS(or_bits, a | b)
BITS(xor_bits, a ^ b)
BITS(not_bits, ~a)
BITS(shift_left, (uint32_t)b < 64 ? a << (uint32_t)b : 0)
BITS(count_bits, __builtin_popcountll(a &all))
BITS(select_bits, c & 1 ? a : b)

OPERATION(shift_right)
{
    OPERANDS;
    int bits = 8 * TYPE_BYTES[in->type], is_signed = in->type & 1;
    uint64_t all = ~0ull >> (64 - bits);
    EACH(uint32_t by = (uint32_t)B[i]; int64_t a = (int64_t)(A[i] << (64 - bits)) >> (64 - bits);
         d[i] = (is_signed ? (uint64_t)(a >> (by < 63 ? by : 63)) : by < 64 ? (A[i] & all) >> by : 0) & all);
}

OPERATION(leading_zeros)
{
    OPERANDS;
    int bits = 8 * TYPE_BYTES[in->type];
    EACH(uint64_t a = A[i] << (64 - bits); d[i] = a ? __builtin_clzll(a) : bits);
}

OPERATION(reverse_bits)
{
    OPERANDS;
    int bits = 8 * TYPE_BYTES[in->type];
    EACH(uint64_t r = 0; for (int k = 0; k < bits; k++) r |= (A[i] >> k & 1) << (bits - 1 - k); d[i] = r);
}

OPERATION(find_highest)
{
    OPERANDS;
    int bits = 8 * TYPE_BYTES[in->type];
    EACH(int64_t a = (int64_t)(A[i] << (64 - bits)) >> (64 - bits); uint64_t magnitude = in->type & 1 && a < 0 ? ~a : a;
         magnitude &= ~0ull >> (64 - bits);
         d[i] = magnitude ? 63 - __builtin_clzll(magnitude) : 0xffffffff);
}

OPERATION(extract)
{
    OPERANDS;
    int bits = 8 * TYPE_BYTES[in->type];
    EACH(uint32_t from = B[i] & 255; uint32_t length = C[i] & 255; uint64_t a = A[i] & ~0ull >> (64 - bits);
         uint64_t taken = from < 64 ? a >> from : 0; uint64_t kept = length < 64 ? taken & ((1ull << length) - 1) : taken;
         uint32_t top = from + length < (uint32_t)bits ? from + length - 1 : bits - 1;
         if (in->type & 1 && length && length < 64 && a >> top & 1) kept |= ~0ull << (top - from + 1 < length ? top - from + 1 : length);
         d[i] = kept & ~0ull >> (64 - bits));
}

OPERATION(insert)
{
    OPERANDS;
    const uint64_t *lengths = operand(warp, in, 4);
    EACH(uint32_t from = C[i] & 255; uint32_t length = lengths[i] & 255;
         uint64_t field = from < 64 ? (length < 64 ? (1ull << length) - 1 : ~0ull) << from : 0;
         d[i] = ((B[i] & ~field) | (from < 64 ? A[i] << from & field : 0)) & ~0ull >> (64 - 8 * TYPE_BYTES[in->type]));
}

enum { LEFT = 1, CLAMP = 2 };

OPERATION(funnel)
{
    OPERANDS;
    EACH(uint64_t both = B[i] << 32 | (uint32_t)A[i]; uint32_t by = (uint32_t)C[i];
         by = in->kind & CLAMP ? LEAST(by, 32u) : by & 31;
         d[i] = in->kind & LEFT ? (uint32_t)((both << by) >> 32) : (uint32_t)(both >> by));
}

OPERATION(permute)
{
    OPERANDS;
    EACH(uint64_t both = B[i] << 32 | (uint32_t)A[i]; uint32_t result = 0; for (int k = 0; k < 4; k++) {
        uint32_t choice = C[i] >> 4 * k & 15;
        uint32_t byte = both >> 8 * (choice & 7) & 255;
        result |= (choice & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * k;
    } d[i] = result);
}

OPERATION(logic)
{
    OPERANDS;
    const uint64_t *table = operand(warp, in, 4);
    EACH(uint32_t result = 0; for (int k = 0; k < 8; k++) if (table[i] >> k & 1) result |=
         (k & 4 ? A[i] : ~A[i]) & (k & 2 ? B[i] : ~B[i]) & (k & 1 ? C[i] : ~C[i]);
         d[i] = result);
}

OPERATION(multiply_wide)
{
    OPERANDS;
    switch (in->type) {
    case U16: EACH(d[i] = (uint32_t)(uint16_t)A[i] * (uint16_t)B[i]); return;
    case S16: EACH(d[i] = (uint32_t)((int32_t)(int16_t)A[i] * (int16_t)B[i])); return;
    case U32: EACH(d[i] = (uint64_t)(uint32_t)A[i] * (uint32_t)B[i]); return;
    case S32: EACH(d[i] = (uint64_t)((int64_t)(int32_t)A[i] * (int32_t)B[i])); return;
    default: fail(warp, in, "of a type that is not known here");
    }
}

OPERATION(multiply_add_wide)
{
    OPERANDS;
    switch (in->type) {
    case U16: EACH(d[i] = (uint32_t)((uint32_t)(uint16_t)A[i] * (uint16_t)B[i] + C[i])); return;
    case U32: EACH(d[i] = (uint64_t)(uint32_t)A[i] * (uint32_t)B[i] + C[i]); return;
    case S32: EACH(d[i] = (uint64_t)((int64_t)(int32_t)A[i] * (int32_t)B[i]) + C[i]); return;
    default: fail(warp, in, "of a type that is not known here");
    }
}

OPERATION(multiply_high)
{
    OPERANDS;
    switch (in->type) {
    case U16: EACH(d[i] = (uint32_t)(uint16_t)A[i] * (uint16_t)B[i] >> 16); return;
    case U32: EACH(d[i] = (uint64_t)(uint32_t)A[i] * (uint32_t)B[i] >> 32); return;
    case S32: EACH(d[i] = (uint32_t)((int64_t)(int32_t)A[i] * (int32_t)B[i] >> 32)); return;
    case U64: EACH(d[i] = (uint64_t)((unsigned __int128)A[i] * B[i] >> 64)); return;
    case S64: EACH(d[i] = (uint64_t)((__int128)(int64_t)A[i] * (int64_t)B[i] >> 64)); return;
    default: fail(warp, in, "of a type that is not known here");
    }
}

// Moving: of one register, or parts to a whole, or a whole to parts.
OPERATION(move)
{
    int parts = in->count - 1, bits = 8 * TYPE_BYTES[in->type];
    uint64_t all = in->type == PRED ? 1 : ~0ull >> (64 - bits);
    if (parts == 1) {
        uint64_t *d = operand(warp, in, 0);
        const uint64_t *a = operand(warp, in, 1);
        uint64_t plus = in->operands[1].plus;
        EACH(d[i] = (a[i] + plus) & all);
        return;
    }
    int part_bits = bits / parts;
    uint64_t part = ~0ull >> (64 - part_bits);
    if (in->first[1] == 1) {
        uint64_t whole[LANES] = {0};
        for (int p = 0; p < parts; p++) {
            const uint64_t *a = operand(warp, in, 1 + p);
            EACH(whole[i] |= (a[i] & part) << part_bits * p);
        }
        uint64_t *d = operand(warp, in, 0);
        EACH(d[i] = whole[i]);
    } else {
        uint64_t whole[LANES];
        memcpy(whole, operand(warp, in, parts), sizeof whole);
        for (int p = 0; p < parts; p++) {
            uint64_t *d = operand(warp, in, p);
            EACH(d[i] = whole[i] >> part_bits * p & part);
        }
    }
}

// Comparisons.

enum { EQ, NE, LT, LE, GT, GE, NUM, UNORDERED = 8, AND = 16, OR = 32, XOR = 48 };

#define COMPARE(T, read)                                                                                               \
    EACH(T a = read(A[i]); T b = read(B[i]); int r = 0; switch (in->kind & 7) {                                        \
        case EQ: r = a == b; break;                                                                                    \
        case NE: r = a < b || a > b; break;                                                                            \
        case LT: r = a < b; break;                                                                                     \
        case LE: r = a <= b; break;                                                                                    \
        case GT: r = a > b; break;                                                                                     \
        case GE: r = a >= b; break;                                                                                    \
        case NUM: r = a == a && b == b; break;                                                                         \
    } if (in->kind & UNORDERED && (a != a || b != b)) r = 1;                                                           \
         result[i] = r)

OPERATION(compare)
{
    int two = in->pair;
    const uint64_t *A = operand(warp, in, 1 + two), *B = operand(warp, in, 2 + two);
    uint64_t result[LANES];
    switch (in->source_type) {
    case U16: COMPARE(uint16_t, (uint16_t)); break;
    case S16: COMPARE(int16_t, (int16_t)); break;
    case U32: COMPARE(uint32_t, (uint32_t)); break;
    case S32: COMPARE(int32_t, (int32_t)); break;
    case U64: COMPARE(uint64_t, (uint64_t)); break;
    case S64: COMPARE(int64_t, (int64_t)); break;
    case F32: COMPARE(float, to_float); break;
    case F64: COMPARE(double, to_double); break;
    case BF16: COMPARE(float, to_float_of_bf16); break;
    default: fail(warp, in, "of a type that is not known here");
    }
    uint64_t other[LANES];
    EACH(other[i] = !result[i]);
    if (in->kind & XOR) {
        const uint64_t *c = operand(warp, in, 3 + two);
        int how = in->kind & XOR;
        EACH(uint64_t q = c[i] & 1; result[i] = how == AND ? result[i] & q : how == OR ? result[i] | q : result[i] ^ q;
             other[i] = how == AND ? other[i] & q : how == OR ? other[i] | q : other[i] ^ q);
    }
    uint64_t *d = operand(warp, in, 0);
    EACH(d[i] = result[i]);
    if (two) {
        uint64_t *q = operand(warp, in, 1);
        EACH(q[i] = other[i]);
    }
}

// Conversions.

enum { TO_ZERO = 1, DOWN, UP, TO_NEAREST, SATURATE = 8, RELU = 16 };

static double round_to(double value, int how)
{
    switch (how & 7) {
    case TO_ZERO: return trunc(value);
    case DOWN: return floor(value);
    case UP: return ceil(value);
    case TO_NEAREST: return nearbyint(value);
    default: return value;
    }
}

static uint64_t convert_one(enum type to, enum type from, uint64_t bits, int how)
{
    int is_float = from >= F32;
    int64_t number = 0;
    double value = 0;
    switch (from) {
    case U8: number = (uint8_t)bits; break;
    case S8: number = (int8_t)bits; break;
    case U16: number = (uint16_t)bits; break;
    case S16: number = (int16_t)bits; break;
    case U32: number = (uint32_t)bits; break;
    case S32: number = (int32_t)bits; break;
    case F32: value = to_float(bits); break;
    case F64: value = to_double(bits); break;
    case BF16: value = to_float_of_bf16(bits); break;
    default: number = (int64_t)bits;
    }
    if (to >= F32) {
        if (!is_float) {
            if (to == F32)
                return of_float(from == U64 ? (float)bits : (float)number);
            value = from == U64 ? (double)bits : (double)number;
        }
        value = round_to(value, how);
        if (how & SATURATE)
            value = value > 0 ? fmin(value, 1) : 0;
        if (how & RELU && value < 0)
            value = 0;
        return to == F64 ? of_double(value) : to == F32 ? of_float((float)value) : of_bf16((float)value);
    }
    int size = 8 * TYPE_BYTES[to];
    uint64_t all = ~0ull >> (64 - size);
    if (to == S8) // spread over the register
        all = 0xffff;
    if (!is_float)
        return (to == S8 ? (uint64_t)(int8_t)number : (uint64_t)number) & all;
    if (value != value)
        return size == 64 ? 1ull << 63 : 0;
    value = round_to(value, how);
    if (to == S8)
        return (uint16_t)(int16_t)fmax(-128, fmin(127, value));
    double least = to & 1 ? -ldexp(1, size - 1) : 0, past = ldexp(1, to & 1 ? size - 1 : size);
    if (value < least)
        value = least;
    if (value >= past)
        return to & 1 ? all >> 1 : all;
    return (value < 0 ? (uint64_t)(int64_t)value : (uint64_t)value) & all;
}

OPERATION(convert)
{
    OPERANDS;
    if (in->type == BF16X2) {
        EACH(d[i] = convert_one(BF16, F32, A[i], in->kind) << 16 | convert_one(BF16, F32, B[i], in->kind));
        return;
    }
    if (in->type == F16 || in->source_type == F16 || in->type == F16X2 || in->source_type == BF16X2)
        fail(warp, in, "of a type that is not known here");
    EACH(d[i] = convert_one(in->type, in->source_type, A[i], in->kind));
}

// Between lanes.

enum { BFLY, DOWN_LANE, UP_LANE, IDX };

OPERATION(shuffle)
{
    int two = in->pair;
    const uint64_t *a = operand(warp, in, 1 + two), *b = operand(warp, in, 2 + two), *c = operand(warp, in, 3 + two);
    uint64_t result[LANES], inside[LANES];
    for (int i = 0; i < LANES; i++) {
        int clamp = c[i] & 31, segment = c[i] >> 8 & 31, by = b[i] & 31;
        int most = (i & segment) | (clamp & ~segment), least = i & segment, from;
        int is_inside;
        switch (in->kind) {
        case UP_LANE: from = i - by; is_inside = from >= most; break;
        case DOWN_LANE: from = i + by; is_inside = from <= most; break;
        case BFLY: from = i ^ by; is_inside = from <= most; break;
        default: from = least | (by & ~segment); is_inside = from <= most;
        }
        if (is_inside && mask >> i & 1 && !(mask >> from & 1))
            fail(warp, in, "lane %d takes from lane %d, which is elsewhere", i, from);
        result[i] = (uint32_t)a[is_inside ? from : i];
        inside[i] = is_inside;
    }
    uint64_t *d = operand(warp, in, 0);
    EACH(d[i] = result[i]);
    if (two) {
        uint64_t *p = operand(warp, in, 1);
        EACH(p[i] = inside[i]);
    }
}

OPERATION(elect)
{
    uint64_t *d = operand(warp, in, 0), *p = operand(warp, in, 1);
    int first = __builtin_ctz(mask);
    EACH(d[i] = first; p[i] = i == first);
}

OPERATION(active_mask)
{
    uint64_t *d = operand(warp, in, 0);
    EACH(d[i] = mask);
}

enum { BALLOT, ANY, EVERY, UNIFORM };

OPERATION(vote)
{
    const uint64_t *a = operand(warp, in, 1);
    uint32_t set = 0;
    for (int i = 0; i < LANES; i++)
        set |= (uint32_t)(a[i] & 1) << i;
    set &= mask;
    uint64_t result = in->kind == BALLOT ? set : in->kind == ANY ? set != 0 : in->kind == EVERY ? set == mask : !set || set == mask;
    uint64_t *d = operand(warp, in, 0);
    EACH(d[i] = result);
}

enum { R_ADD, R_MIN, R_MAX, R_AND, R_OR, R_XOR };

OPERATION(reduce)
{
    const uint64_t *a = operand(warp, in, 1);
    int64_t total = 0, first = 1;
    for (int i = 0; i < LANES; i++)
        if (mask >> i & 1) {
            int64_t value = in->type == S32 ? (int64_t)(int32_t)a[i] : (int64_t)(uint32_t)a[i];
            if (first)
                total = value;
            else
                switch (in->kind) {
                case R_ADD: total += value; break;
                case R_MIN: total = LEAST(total, value); break;
                case R_MAX: total = MOST(total, value); break;
                case R_AND: total &= value; break;
                case R_OR: total |= value; break;
                default: total ^= value;
                }
            first = 0;
        }
    uint64_t *d = operand(warp, in, 0);
    EACH(d[i] = (uint32_t)total);
}

// By the opcode without its type and without what rounds or flushes: subnormal numbers are kept here.
static const struct { const char *name; run_function *run; int kind; } KNOWN[] = {
    {"add", add}, {"sub", subtract}, {"mul", multiply}, {"mul.lo", multiply}, {"mul.wide", multiply_wide},
    {"mul.hi", multiply_high}, {"mad.lo", multiply_add}, {"mad.wide", multiply_add_wide}, {"fma", fuse}, {"mad", fuse},
    {"neg", negate}, {"abs", absolute}, {"min", minimum}, {"max", maximum}, {"div", divide}, {"min.NaN", minimum_or_nan},
    {"max.NaN", maximum_or_nan}, {"rem", remainder_of}, {"rcp", reciprocal}, {"sqrt", square_root},
    {"rsqrt", reciprocal_root}, {"ex2", exponential}, {"lg2", logarithm}, {"tanh", hyperbolic_tangent}, {"sin", sine},
    {"cos", cosine}, {"copysign", copy_sign}, {"and", and_bits}, {"or", or_bits}, {"xor", xor_bits}, {"not", not_bits},
    {"shl", shift_left}, {"shr", shift_right}, {"clz", leading_zeros}, {"brev", reverse_bits}, {"popc", count_bits},
    {"bfind", find_highest}, {"bfe", extract}, {"bfi", insert}, {"shf.l.wrap", funnel, LEFT}, {"shf.r.wrap", funnel},
    {"shf.l.clamp", funnel, LEFT | CLAMP}, {"shf.r.clamp", funnel, CLAMP}, {"prmt", permute}, {"lop3", logic},
    {"mov", move}, {"selp", select_bits}, {"shfl.sync.bfly", shuffle, BFLY}, {"shfl.sync.down", shuffle, DOWN_LANE},
    {"shfl.sync.up", shuffle, UP_LANE}, {"shfl.sync.idx", shuffle, IDX}, {"vote.sync.ballot", vote, BALLOT},
    {"vote.sync.any", vote, ANY}, {"vote.sync.all", vote, EVERY}, {"vote.sync.uni", vote, UNIFORM},
    {"redux.sync.add", reduce, R_ADD}, {"redux.sync.min", reduce, R_MIN}, {"redux.sync.max", reduce, R_MAX},
    {"redux.sync.and", reduce, R_AND}, {"redux.sync.or", reduce, R_OR}, {"redux.sync.xor", reduce, R_XOR}};

static run_function *find_compare(struct instruction *in)
{
    static const char *const names[] = {"eq", "ne", "lt", "le", "gt", "ge", "num"};
    static const char *const unsigned_names[] = {"", "", "lo", "ls", "hi", "hs"};
    char opcode[128], *rest = opcode;
    snprintf(opcode, sizeof opcode, "%s", in->opcode);
    strsep(&rest, ".");
    for (char *part; (part = strsep(&rest, "."));) {
        size_t length = strlen(part);
        for (int c = 0; c < 7; c++)
            if (!strncmp(part, names[c], strlen(names[c])) &&
                (!part[strlen(names[c])] || (part[length - 1] == 'u' && length == strlen(names[c]) + 1)))
                in->kind |= c | (part[length - 1] == 'u' ? UNORDERED : 0);
        for (int c = LT; c <= GE; c++)
            if (!strcmp(part, unsigned_names[c]))
                in->kind |= c;
        if (!strcmp(part, "nan")) // neither is a number: all but the first comparison's negation is not known here
            return NULL;
        in->kind |= !strcmp(part, "and") ? AND : !strcmp(part, "or") ? OR : !strcmp(part, "xor") ? XOR : 0;
    }
    return compare;
}

static run_function *find_convert(struct instruction *in)
{
    static const struct { const char *part; int kind; } known[] = {
        {"cvt", 0}, {"rn", 0}, {"ftz", 0}, {"rzi", TO_ZERO}, {"rmi", DOWN}, {"rpi", UP}, {"rni", TO_NEAREST},
        {"sat", SATURATE}, {"relu", RELU}};
    char opcode[128], *rest = opcode;
    snprintf(opcode, sizeof opcode, "%s", in->opcode);
    for (char *part; (part = strsep(&rest, "."));) {
        int is_known = parse_type(part) != TYPES;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (!strcmp(part, known[i].part)) {
                is_known = 1;
                in->kind |= known[i].kind;
            }
        if (!is_known)
            return NULL;
    }
    return in->kind & SATURATE && in->type < F32 ? NULL : convert;
}

run_function *find_compute(struct instruction *in)
{
    static const char *const ignored[] = {"rn", "ftz", "approx", "full", "to", "global", "shared", "param", "local", "const"};
    if (!strncmp(in->opcode, "setp.", 5))
        return find_compare(in);
    if (!strncmp(in->opcode, "cvt.", 4))
        return find_convert(in);
    if (!strncmp(in->opcode, "cvta.", 5) && strstr(in->opcode, "global"))
        return move;
    if (!strncmp(in->opcode, "elect.sync", 10))
        return elect;
    if (!strncmp(in->opcode, "activemask", 10))
        return active_mask;
    char opcode[128], name[128] = "", *rest = opcode;
    snprintf(opcode, sizeof opcode, "%s", in->opcode);
    for (char *part; (part = strsep(&rest, "."));) {
        int skipped = parse_type(part) != TYPES;
        for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
            skipped |= !strcmp(part, ignored[i]);
        if (!skipped)
            snprintf(name + strlen(name), sizeof name - strlen(name), "%s%s", *name ? "." : "", part);
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (!strcmp(KNOWN[i].name, name)) {
            if (KNOWN[i].run == divide && in->type >= F32)
                return divide_floats;
            in->kind = KNOWN[i].kind;
            return KNOWN[i].run;
        }
    return NULL;
}
