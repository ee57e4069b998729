// Matrices: fragments of them to and from shared memory, and products on tensor cores, of bfloat16 in float32.
//
// Source: PTX ISA 9.0, "Warp-level matrix instructions" and "Asynchronous warpgroup level matrix instructions";
// CUTLASS, cute/arch/mma_sm90_desc.hpp, for where a descriptor's elements lie.
#include "ptx.h"

#include <stdlib.h>
#include <string.h>

static void require_all(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    if (mask != ALL)
        fail(warp, in, "a part of a warp alone");
}

// Of a matrix of 8 by 8 lane l has two elements of row l / 4; transposed, of column l / 4. Lanes 8 m to 8 m + 7 say
// where the rows of matrix m lie.
enum { TRANSPOSED = 1 };

OPERATION(load_matrices)
{
    require_all(warp, in, mask);
    int n = in->vector;
    uint16_t rows[4][8][8];
    for (int m = 0; m < n; m++)
        for (int r = 0; r < 8; r++)
            memcpy(rows[m][r], at_shared(warp, in, operand(warp, in, n)[8 * m + r] + in->operands[n].plus, 16), 16);
    for (int m = 0; m < n; m++) {
        uint64_t *d = operand(warp, in, m);
        for (int i = 0; i < LANES; i++) {
            int r = i / 4, c = 2 * (i % 4);
            d[i] = in->kind & TRANSPOSED ? rows[m][c][r] | (uint32_t)rows[m][c + 1][r] << 16
                                         : rows[m][r][c] | (uint32_t)rows[m][r][c + 1] << 16;
        }
    }
}

OPERATION(store_matrices)
{
    require_all(warp, in, mask);
    for (int m = 0; m < in->vector; m++) {
        const uint64_t *a = operand(warp, in, 1 + m);
        for (int i = 0; i < LANES; i++)
            for (int half = 0; half < 2; half++) {
                int r = i / 4, c = 2 * (i % 4) + half;
                int row = in->kind & TRANSPOSED ? c : r, column = in->kind & TRANSPOSED ? r : c;
                uint16_t value = a[i] >> 16 * half;
                uint64_t address = operand(warp, in, 0)[8 * m + row] + in->operands[0].plus;
                memcpy(at_shared(warp, in, address, 16) + 2 * column, &value, 2);
            }
    }
}

OPERATION(transpose_matrix)
{
    require_all(warp, in, mask);
    uint16_t matrix[8][8];
    const uint64_t *a = operand(warp, in, 1);
    for (int i = 0; i < LANES; i++)
        for (int half = 0; half < 2; half++)
            matrix[i / 4][2 * (i % 4) + half] = a[i] >> 16 * half;
    uint64_t *d = operand(warp, in, 0);
    for (int i = 0; i < LANES; i++)
        d[i] = matrix[2 * (i % 4)][i / 4] | (uint32_t)matrix[2 * (i % 4) + 1][i / 4] << 16;
}

// A fragment of A, 16 by 16: register r has rows + 8 for r odd, columns + 8 for r from 2 on.
static void read_a(struct warp *warp, const struct instruction *in, int first, float a[16][16])
{
    for (int r = 0; r < 4; r++) {
        const uint64_t *bits = operand(warp, in, first + r);
        for (int i = 0; i < LANES; i++)
            for (int half = 0; half < 2; half++)
                a[i / 4 + 8 * (r & 1)][2 * (i % 4) + half + 8 * (r >> 1)] = to_float_of_bf16(bits[i] >> 16 * half);
    }
}

// Adds products of 16 rows to sums: register s of a lane is row l / 4 (+ 8), column 8 (s / 4) + 2 (l % 4) (+ 1).
static void add_products(
    struct warp *warp, const struct instruction *in, float a[16][16], const float *b, int columns, int sums, int adds)
{
    for (int s = 0; s < columns / 2; s++) {
        uint64_t *d = operand(warp, in, s);
        const uint64_t *c = operand(warp, in, sums + s);
        for (int i = 0; i < LANES; i++) {
            const float *row = a[i / 4 + 8 * (s >> 1 & 1)], *column = b + 16 * (8 * (s >> 2) + 2 * (i % 4) + (s & 1));
            float total = 0;
            for (int k = 0; k < 16; k++)
                total += row[k] * column[k];
            d[i] = of_float(adds ? total + to_float(c[i]) : total);
        }
    }
}

OPERATION(multiply_fragments) // mma.m16n8k16
{
    require_all(warp, in, mask);
    float a[16][16], b[8][16];
    read_a(warp, in, 4, a);
    for (int r = 0; r < 2; r++) {
        const uint64_t *bits = operand(warp, in, 8 + r);
        for (int i = 0; i < LANES; i++)
            for (int half = 0; half < 2; half++)
                b[i / 4][2 * (i % 4) + half + 8 * r] = to_float_of_bf16(bits[i] >> 16 * half);
    }
    add_products(warp, in, a, b[0], 8, 10, 1);
}

// An operand in shared memory, as its descriptor says: `rows` of M or N by 16 of K.
enum { NO_SWIZZLE, SWIZZLE_128, SWIZZLE_64, SWIZZLE_32 };

static void read_described(
    struct warp *warp, const struct instruction *in, uint64_t descriptor, int is_transposed, int first, int rows, float *out)
{
    uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4;
    uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
    int mode = descriptor >> 62, width = mode == NO_SWIZZLE ? 16 : 256 >> mode; // bytes of a line of the pattern
    if (descriptor >> 49 & 7)
        fail(warp, in, "a descriptor with a base offset");
    for (int n = 0; n < rows; n++)
        for (int k = 0; k < 16; k++) {
            uint32_t row = first + n, offset, elements = width / 2;
            if (!is_transposed && mode == NO_SWIZZLE) // 8 rows of 16 bytes; along k leading, along rows stride
                offset = row % 8 * 16 + row / 8 * stride + k / 8 * leading + k % 8 * 2;
            else if (!is_transposed) // 8 rows of `width` bytes
                offset = row % 8 * width + row / 8 * stride + 2 * k;
            else if (mode == NO_SWIZZLE) // 8 of k, 8 rows side by side each; along rows stride, along k leading
                offset = row % 8 * 2 + row / 8 * stride + k % 8 * 16 + k / 8 * leading;
            else // 8 of k, a line of rows each; along rows leading, along k stride
                offset = row % elements * 2 + row / elements * leading + k % 8 * width + k / 8 * stride;
            uint32_t place = start + offset;
            if (mode)
                place ^= place >> 3 & ((1 << (4 - mode)) - 1) << 4;
            uint16_t bits;
            memcpy(&bits, at_shared(warp, in, place, 2), 2);
            out[16 * n + k] = to_float_of_bf16(bits);
        }
}

// kind: columns, n of m64nNk16. Operands: d, a (a descriptor or four registers), b's descriptor, whether to add, signs
// of a and b, and whether a (where it is described) and b are transposed.
OPERATION(multiply_described)
{
    require_all(warp, in, mask);
    int columns = in->kind, sums = in->first[1], a_in_registers = in->first[2] - in->first[1] == 4;
    if (in->first[1] != columns / 2)
        fail(warp, in, "%d sums", in->first[1]);
    int b_at = in->first[2], adds = operand(warp, in, in->first[3])[0] & 1;
    int b_transposed = operand(warp, in, in->first[6 + !a_in_registers])[0] & 1;
    if ((int64_t)operand(warp, in, in->first[4])[0] != 1 || (int64_t)operand(warp, in, in->first[5])[0] != 1)
        fail(warp, in, "operands that are negated");
    float a[16][16], b[256 * 16];
    if (a_in_registers)
        read_a(warp, in, sums, a);
    else
        read_described(
            warp, in, operand(warp, in, sums)[0], operand(warp, in, in->first[6])[0] & 1, warp->number % 4 * 16, 16, a[0]);
    read_described(warp, in, operand(warp, in, b_at)[0], b_transposed, 0, columns, b);
    add_products(warp, in, a, b, columns, 0, adds);
}

// A product is read when it is begun: none of the warpgroup's goes on before all have begun theirs.
OPERATION(wait_for_products)
{
    require_all(warp, in, mask);
    arrive_at(warp, 16 + warp->number / 4, 4 * LANES, 1);
}

run_function *find_matrix(struct instruction *in)
{
    const char *opcode = in->opcode;
    in->kind = strstr(opcode, ".trans") ? TRANSPOSED : 0;
    if (!strncmp(opcode, "ldmatrix.sync.aligned.m8n8.x", 28))
        return load_matrices;
    if (!strncmp(opcode, "stmatrix.sync.aligned.m8n8.x", 28))
        return store_matrices;
    if (!strcmp(opcode, "movmatrix.sync.aligned.m8n8.trans.b16"))
        return transpose_matrix;
    if (!strcmp(opcode, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"))
        return multiply_fragments;
    if (!strncmp(opcode, "wgmma.wait_group", 16))
        return wait_for_products;
    if (!strncmp(opcode, "wgmma.mma_async.sync.aligned.m64n", 33) && strstr(opcode, "k16.f32.bf16.bf16")) {
        in->kind = atoi(opcode + 33);
        return multiply_described;
    }
    return NULL;
}
