// Loads, stores, atomic operations, copies and the barriers in shared memory that they arrive at.
//
// A store outside of what was allocated is an error; where each tensor is an allocation of its own
// (MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE=0), so is one past its end.
//
// Global and generic addresses are the host's. One of a parameter is an offset, and so is one in local or shared
// memory; of a block of the cluster it has the block's rank and one above 24 bits. Copies are done at once, which a
// program that waits cannot tell.
#include "ptx.h"

#include <stdio.h>
#include <string.h>

#define FOR_ACTIVE(i) for (int i = 0; i < LANES; i++) if (mask >> i & 1)

enum { RANK_SHIFT = 24 };
enum space { GENERIC, SHARED, PARAMETER, LOCAL_MEMORY };

uint8_t *at_shared(struct warp *warp, const struct instruction *in, uint64_t address, size_t size)
{
    struct block *block = warp->block;
    uint32_t rank = (uint32_t)address >> RANK_SHIFT, offset = (uint32_t)address & ((1 << RANK_SHIFT) - 1);
    if (rank > (uint32_t)block->cluster->size)
        fail(warp, in, "no block of the cluster has %#x", (uint32_t)address);
    if (rank)
        block = &block->cluster->blocks[rank - 1];
    if (offset + size > block->shared_bytes)
        fail(warp, in, "%zu bytes at %u of %zu of shared memory", size, offset, block->shared_bytes);
    if (offset % size && size <= 16)
        fail(warp, in, "%zu bytes at %u, which is misaligned", size, offset);
    return block->shared + offset;
}

enum { LOAD, STORE };

// A load from behind an allocation, which a real GPU allows within a page, is noted, once for an instruction.
static void note_once(struct warp *warp, const struct instruction *in)
{
    struct instruction *noted = (struct instruction *)in;
    if (!noted->is_noted)
        note("behind: %s: %s\n", warp->block->program->name, in->text);
    noted->is_noted = 1;
}

static uint8_t *at_global(struct warp *warp, const struct instruction *in, uint64_t address, size_t size, int how)
{
    const struct launched *launch = warp->block->launch;
    if (size <= 16 && address % size)
        fail(warp, in, "%zu bytes at %#lx, which is misaligned", size, address);
    uint64_t parameters = (uintptr_t)launch->parameters;
    if (address >= parameters && address + size <= parameters + launch->program->parameter_bytes)
        return (uint8_t *)address;
    if (warp->local && address >= (uintptr_t)warp->local &&
        address + size <= (uintptr_t)warp->local + LANES * launch->program->local_bytes)
        return (uint8_t *)address;
    uint64_t shared = (uintptr_t)warp->block->shared;
    if (address >= shared && address + size <= shared + warp->block->shared_bytes)
        return (uint8_t *)address;
    enum place place = find_place(address, size);
    if (place == BEHIND && how == LOAD)
        note_once(warp, in);
    else if (place != INSIDE)
        fail(warp, in, "%zu bytes at %#lx, where no memory is", size, address);
    return (uint8_t *)address;
}

static uint64_t local_base(struct warp *warp, int lane)
{
    return (uintptr_t)(warp->local + lane * warp->block->program->local_bytes);
}

static uint8_t *at(struct warp *warp, const struct instruction *in, int n, int lane, size_t size, int how)
{
    uint64_t address = operand(warp, in, n)[lane] + in->operands[n].plus;
    if (in->kind == LOCAL_MEMORY)
        address = local_base(warp, lane) + (uint32_t)address;
    if (in->kind == PARAMETER)
        address = (uintptr_t)warp->block->launch->parameters + (uint32_t)address;
    return in->kind == SHARED ? at_shared(warp, in, address, size) : at_global(warp, in, address, size, how);
}

static uint64_t read_bytes(const uint8_t *from, enum type type)
{
    switch (type) {
    case U8: return *from;
    case S8: return (uint64_t)(int64_t) * (const int8_t *)from;
    case U16: case BF16: case F16: return *(const uint16_t *)from;
    case S16: return (uint64_t)(int64_t) * (const int16_t *)from;
    case S32: return (uint64_t)(int64_t) * (const int32_t *)from;
    case U64: case S64: case F64: return *(const uint64_t *)from;
    default: return *(const uint32_t *)from;
    }
}

OPERATION(load)
{
    int count = in->vector, size = TYPE_BYTES[in->type];
    uint64_t *targets[8];
    for (int v = 0; v < count; v++)
        targets[v] = operand(warp, in, v);
    FOR_ACTIVE(i)
    {
        const uint8_t *from = at(warp, in, count, i, size * count, LOAD);
        uint64_t values[8];
        for (int v = 0; v < count; v++)
            values[v] = read_bytes(from + v * size, in->type);
        for (int v = 0; v < count; v++)
            targets[v][i] = values[v];
    }
}

OPERATION(store)
{
    int count = in->vector, size = TYPE_BYTES[in->type];
    FOR_ACTIVE(i)
    {
        uint8_t *to = at(warp, in, 0, i, size * count, STORE);
        for (int v = 0; v < count; v++) {
            memcpy(to + v * size, &operand(warp, in, 1 + v)[i], size);
            if (in->kind == GENERIC)
                warp->block->launch->stored += operand(warp, in, 1 + v)[i] & ~0ull >> (64 - 8 * size);
        }
    }
}

// Atomic operations: nobody else runs meanwhile.

enum { ADD, MIN, MAX, EXCH, CAS, AND, OR, XOR };

static uint64_t change(const struct instruction *in, uint64_t old, uint64_t by, uint64_t other)
{
    switch (in->operation) {
    case EXCH: return by;
    case CAS: return old == (by & ~0ull >> (64 - 8 * TYPE_BYTES[in->type])) ? other : old;
    case AND: return old & by;
    case OR: return old | by;
    case XOR: return old ^ by;
    case ADD:
        switch (in->type) {
        case F32: return of_float(to_float(old) + to_float(by));
        case F64: return of_double(to_double(old) + to_double(by));
        default: return old + by;
        }
    default:;
    }
    int less;
    switch (in->type) {
    case S32: less = (int32_t)by < (int32_t)old; break;
    case S64: less = (int64_t)by < (int64_t)old; break;
    case U32: less = (uint32_t)by < (uint32_t)old; break;
    default: less = by < old;
    }
    return (in->operation == MIN) == less ? by : old;
}

OPERATION(change_atomically)
{
    int gives = in->opcode[0] == 'a', size = TYPE_BYTES[in->type];
    FOR_ACTIVE(i)
    {
        uint8_t *place = at(warp, in, gives, i, size, STORE);
        uint64_t old = 0, by = operand(warp, in, gives + 1)[i];
        memcpy(&old, place, size);
        uint64_t new = change(in, old, by, in->operation == CAS ? operand(warp, in, gives + 2)[i] : 0);
        memcpy(place, &new, size);
        if (gives)
            operand(warp, in, 0)[i] = old;
    }
}

// Addresses.

OPERATION(map_to_block)
{
    uint64_t *d = operand(warp, in, 0);
    const uint64_t *a = operand(warp, in, 1), *rank = operand(warp, in, 2);
    uint64_t plus = in->operands[1].plus;
    FOR_ACTIVE(i) d[i] = ((a[i] + plus) & ((1 << RANK_SHIFT) - 1)) | (rank[i] + 1) << RANK_SHIFT;
}

OPERATION(convert_address)
{
    uint64_t *d = operand(warp, in, 0);
    const uint64_t *a = operand(warp, in, 1);
    uint64_t plus = in->operands[1].plus;
    uint64_t base = (uintptr_t)(in->kind == SHARED ? warp->block->shared : warp->block->launch->parameters);
    int back = strstr(in->opcode, ".to.") != NULL;
    FOR_ACTIVE(i)
    {
        if (in->kind == LOCAL_MEMORY)
            base = local_base(warp, i);
        d[i] = a[i] + plus + (back ? -base : base);
    }
}

// Barriers: eight bytes of shared memory.

struct barrier {
    uint64_t phase : 1, count : 20, pending : 20;
    int64_t words : 23; // of four bytes, that are still to come
};

_Static_assert(sizeof(struct barrier) == 8, "that a program has set aside for one");

static struct barrier *barrier_at(struct warp *warp, const struct instruction *in, uint64_t address)
{
    return (struct barrier *)at_shared(warp, in, address, 8);
}

static void complete(struct barrier *barrier)
{
    if (!barrier->pending && !barrier->words) {
        barrier->phase ^= 1;
        barrier->pending = barrier->count;
    }
}

static void arrive(struct warp *warp, const struct instruction *in, struct barrier *barrier, int64_t bytes)
{
    if (!barrier->pending)
        fail(warp, in, "more arrive than were expected");
    if (bytes % 4)
        fail(warp, in, "%ld bytes", bytes);
    barrier->words += bytes / 4;
    barrier->pending--;
    complete(barrier);
}

static void deliver(struct barrier *barrier, int64_t bytes)
{
    barrier->words -= bytes / 4;
    complete(barrier);
}

OPERATION(init_barrier)
{
    FOR_ACTIVE(i)
    {
        uint64_t count = operand(warp, in, 1)[i];
        *barrier_at(warp, in, operand(warp, in, 0)[i] + in->operands[0].plus) = (struct barrier){0, count, count, 0};
    }
}

OPERATION(arrive_at_barrier)
{
    const char *comma = strchr(in->text, ',');
    int n = comma && strchr(in->text, '[') > comma; // whether it gives the phase it found
    int expects = strstr(in->opcode, "expect_tx") != NULL;
    if (!strstr(in->opcode, "expect_tx") && in->count > n + 1)
        fail(warp, in, "a count of arrivals is not known here");
    FOR_ACTIVE(i)
    {
        uint64_t address = operand(warp, in, n)[i] + in->operands[n].plus;
        arrive(warp, in, barrier_at(warp, in, address), expects ? (int64_t)(uint32_t)operand(warp, in, n + 1)[i] : 0);
    }
}

OPERATION(ask_barrier)
{
    uint64_t *d = operand(warp, in, 0);
    FOR_ACTIVE(i)
    {
        uint64_t parity = operand(warp, in, 2)[i] & 1;
        d[i] = barrier_at(warp, in, operand(warp, in, 1)[i] + in->operands[1].plus)->phase != parity;
        warp->asked &= ~(1u << i);
        if (!d[i]) {
            warp->asked |= 1u << i;
            warp->yields = 1;
        }
    }
}

// Copies.

OPERATION(copy_async)
{
    FOR_ACTIVE(i)
    {
        size_t size = operand(warp, in, 2)[i], taken = in->count > 3 ? (uint32_t)operand(warp, in, 3)[i] : size;
        uint8_t *to = at_shared(warp, in, operand(warp, in, 0)[i] + in->operands[0].plus, size);
        if (taken > size)
            fail(warp, in, "%zu bytes of %zu", taken, size);
        if (taken)
            memcpy(to, at_global(warp, in, operand(warp, in, 1)[i] + in->operands[1].plus, taken, LOAD), taken);
        memset(to + taken, 0, size - taken);
    }
}

OPERATION(arrive_behind_copies)
{
    FOR_ACTIVE(i)
    arrive(warp, in, barrier_at(warp, in, operand(warp, in, 0)[i] + in->operands[0].plus), 0);
}

OPERATION(copy_bulk)
{
    FOR_ACTIVE(i)
    {
        size_t size = (uint32_t)operand(warp, in, 2)[i];
        uint64_t to = operand(warp, in, 0)[i] + in->operands[0].plus, from = operand(warp, in, 1)[i] + in->operands[1].plus;
        if (to % 16 || from % 16 || size % 16)
            fail(warp, in, "%zu bytes, misaligned", size);
        if (!size)
            continue;
        memcpy(at_shared(warp, in, to, size), at_global(warp, in, from, size, LOAD), size);
        deliver(barrier_at(warp, in, operand(warp, in, 3)[i] + in->operands[3].plus), size);
    }
}

// Tensor maps, as cuTensorMapEncodeTiled writes them (driver.c): boxes of up to five dimensions, the first one densest.

static uint32_t swizzle(uint32_t offset, int mode) // CU_TENSOR_MAP_SWIZZLE_NONE, 32B, 64B, 128B
{
    return mode ? offset ^ (offset >> 3 & ((1 << mode) - 1) << 4) : offset;
}

static void copy_box(struct warp *warp, const struct instruction *in, int lane, int is_store)
{
    int of_map = is_store ? 0 : 1, rank = in->first[of_map + 1] - in->first[of_map] - 1;
    int of_shared = is_store ? in->first[1] : 0, map_at = in->first[of_map];
    const struct tensor_map *map = (void *)at_global(
        warp, in, operand(warp, in, map_at)[lane] + in->operands[map_at].plus, sizeof *map, LOAD);
    if (map->magic != TENSOR_MAP || map->rank != rank)
        fail(warp, in, "no tensor map of %d dimensions", rank);
    uint64_t shared = operand(warp, in, of_shared)[lane] + in->operands[of_shared].plus;
    int64_t coordinates[5], count = 1, row = (int64_t)map->box[0] * map->element_size;
    for (int k = 0; k < rank; k++) {
        coordinates[k] = (int32_t)operand(warp, in, map_at + 1 + k)[lane];
        count *= map->box[k];
    }
    uint32_t base = (uint32_t)shared;
    uint8_t *block = at_shared(warp, in, shared, count * map->element_size) - (base & ((1 << RANK_SHIFT) - 1));
    base &= (1 << RANK_SHIFT) - 1;
    for (int64_t n = 0; n < count / map->box[0]; n++) {
        int64_t rest = n, inside = 1;
        uint64_t from = map->address;
        for (int k = 1; k < rank; k++) {
            int64_t c = coordinates[k] + rest % map->box[k];
            rest /= map->box[k];
            inside &= c >= 0 && c < (int64_t)map->sizes[k];
            from += c * map->strides[k - 1];
        }
        for (int64_t e = 0; e < map->box[0]; e++) {
            int64_t c = coordinates[0] + e;
            uint8_t *to = block + swizzle(base + n * row + e * map->element_size, map->swizzle);
            int is_inside = inside && c >= 0 && c < (int64_t)map->sizes[0];
            uint64_t element = from + c * map->element_size;
            if (is_store && is_inside)
                memcpy(at_global(warp, in, element, map->element_size, STORE), to, map->element_size);
            else if (!is_store && is_inside)
                memcpy(to, at_global(warp, in, element, map->element_size, LOAD), map->element_size);
            else if (!is_store)
                memset(to, 0, map->element_size);
        }
    }
    if (!is_store)
        deliver(
            barrier_at(warp, in, operand(warp, in, in->first[2])[lane] + in->operands[in->first[2]].plus),
            count * map->element_size);
}

OPERATION(load_box) { FOR_ACTIVE(i) copy_box(warp, in, i, 0); }
OPERATION(store_box) { FOR_ACTIVE(i) copy_box(warp, in, i, 1); }

static int has(const struct instruction *in, const char *part) { return strstr(in->opcode, part) != NULL; }

run_function *find_memory(struct instruction *in)
{
    int is_load = !strncmp(in->opcode, "ld.", 3) || !strncmp(in->opcode, "ldu.", 4);
    in->kind = has(in, ".shared") ? SHARED : has(in, ".param") ? PARAMETER : has(in, ".local") ? LOCAL_MEMORY : GENERIC;
    if (has(in, "param::func"))
        return NULL;
    if (is_load && in->vector <= 8)
        return load;
    if (!strncmp(in->opcode, "st.", 3) && !has(in, "st.async"))
        return store;
    if (!strncmp(in->opcode, "atom.", 5) || !strncmp(in->opcode, "red.", 4)) {
        static const char *const names[] = {".add.", ".min.", ".max.", ".exch.", ".cas.", ".and.", ".or.", ".xor."};
        for (int k = 0; k < 8; k++)
            if (has(in, names[k])) {
                in->operation = k;
                return in->vector != 1 || has(in, "x2") || has(in, ".async") ? NULL : change_atomically;
            }
        return NULL;
    }
    if (!strncmp(in->opcode, "mapa.", 5))
        return map_to_block;
    if (!strncmp(in->opcode, "cvta.", 5) && in->kind != GENERIC)
        return convert_address;
    if (!strncmp(in->opcode, "mbarrier.init", 13))
        return init_barrier;
    if (!strncmp(in->opcode, "mbarrier.inval", 14))
        return run_nothing;
    if (!strncmp(in->opcode, "mbarrier.arrive", 15))
        return arrive_at_barrier;
    if (!strncmp(in->opcode, "mbarrier.try_wait.parity", 24) || !strncmp(in->opcode, "mbarrier.test_wait.parity", 25))
        return ask_barrier;
    if (has(in, "multicast") || has(in, "im2col"))
        return NULL;
    if (!strncmp(in->opcode, "cp.async.mbarrier.arrive.noinc", 30))
        return arrive_behind_copies;
    if (!strncmp(in->opcode, "cp.async.ca.shared", 18) || !strncmp(in->opcode, "cp.async.cg.shared", 18))
        return copy_async;
    if (!strncmp(in->opcode, "cp.async.bulk.tensor", 20) && has(in, "mbarrier"))
        return load_box;
    if (!strncmp(in->opcode, "cp.async.bulk.tensor", 20) && has(in, "global.shared::cta"))
        return has(in, "reduce") ? NULL : store_box;
    if (!strncmp(in->opcode, "cp.async.bulk.commit_group", 26) || !strncmp(in->opcode, "cp.async.bulk.wait_group", 24))
        return run_nothing;
    if (!strncmp(in->opcode, "cp.async.bulk.shared", 20) && has(in, "mbarrier"))
        return copy_bulk;
    return NULL;
}
