// PTX, parsed and run: what program.c makes of a module's text, and kernels.c, compute.c, memory.c and matrix.c run.
#pragma once
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

enum { LANES = 32, NONE = -1 };
enum { ALL = 0xffffffffu };

typedef uint64_t lanes[LANES]; // a register of a warp, or a constant: bits of each lane, zeros above its width

struct warp;
struct instruction;
typedef void run_function(struct warp *, const struct instruction *, uint32_t mask);

// Defines what an instruction does for the lanes of a mask.
#define OPERATION(name) static void name(struct warp *warp, const struct instruction *in, uint32_t mask)

// A register, or an address: a register and what is added to it.
struct operand {
    int slot;
    int64_t plus;
};

enum type { U8, S8, U16, S16, U32, S32, U64, S64, F32, F64, BF16, BF16X2, F16, F16X2, PRED, TYPES };

struct instruction {
    run_function *run;
    enum type type, source_type; // the opcode's last two types, or the same twice
    int guard, negated;          // the predicate's slot, or NONE
    int whole_warp;              // whether all lanes have to come to it together
    int target;                  // of a branch
    int vector;                  // v2, v4, v8, or .x2, .x4 of matrices
    int operation;               // of an atomic one
    int pair;                    // whether its results are two, a|b
    int kind;                    // what else its run_function wants to know
    int count;                   // operands, those in braces one by one
    struct operand *operands;
    int groups, first[16];       // where each operand begins, and where the last ends
    const char *opcode, *text;
    int is_noted;
};

enum special { TID, NTID = TID + 3, CTAID = NTID + 3, NCTAID = CTAID + 3, LANEID = NCTAID + 3, WARPID,
               CLUSTER_CTARANK, CLUSTER_NCTARANK, CLUSTER_CTAID, CLUSTER_NCTAID = CLUSTER_CTAID + 3,
               CLUSTERID = CLUSTER_NCTAID + 3, NCLUSTERID = CLUSTERID + 3, LOCAL = NCLUSTERID + 3, SPECIALS };

struct parameter {
    int size, at, slot; // bytes, offset among all, the register with that
};

struct program {
    char name[256];
    int instruction_count, slot_count, constant_count, parameter_count, parameter_bytes, shared_bytes, local_bytes;
    int cluster[3]; // .reqnctapercluster, or 0
    struct instruction *instructions;
    lanes *constants; // slot ~c is constant c
    struct parameter parameters[64];
    int special[SPECIALS]; // slots, or NONE
};

// What cuTensorMapEncodeTiled writes to a map's 128 bytes.
enum { TENSOR_MAP = 0x7a9 };
struct tensor_map {
    uint16_t magic;
    uint8_t rank, element_size, swizzle;
    uint32_t box[5];
    uint64_t address, sizes[5], strides[4]; // strides in bytes, of all dimensions but the first
};

_Static_assert(sizeof(struct tensor_map) <= 128, "a map's size");

// program.c
struct program *parse_program(const char *text); // NULL if there is no entry
enum type parse_type(const char *name);          // TYPES if it is none

// kernels.c: sets run and kind; what is not known fails when it is run
void find_run_function(struct instruction *, int is_known);

// A block of threads that runs.

struct warp {
    struct block *block;
    int number;
    uint32_t alive, active;  // lanes that have not returned; those that run the next instruction
    uint32_t asked;          // lanes that have asked a barrier in vain
    int at;                  // the next instruction
    int places[LANES];       // of lanes that are not active
    int waiting;             // at this barrier, or NONE
    int cluster_waits;       // how often it has waited for the cluster
    int yields;              // its turn is over: it asked in vain
    lanes *slots;
    uint8_t *local;
};

struct named_barrier {
    int there, wanted;
};

struct block {
    const struct program *program;
    struct launched *launch;
    unsigned index[3];
    int rank; // in its cluster
    struct cluster *cluster;
    uint8_t *shared;
    size_t shared_bytes;
    int warp_count;
    struct warp *warps;
    struct named_barrier barriers[16 + 8]; // of threads, by number; of warpgroups that wait for products
    int done;
};

struct cluster {
    int size;
    struct block *blocks;
    int there, phase; // of its barrier
};

struct launched {
    const struct program *program;
    unsigned grid[3], block[3], cluster[3], shared_bytes;
    uint8_t *parameters;
    uint64_t stored; // the sum of what threads stored outside of shared memory, whatever the order
    struct cluster **clusters;
    unsigned resident;
    char error[1024];
    jmp_buf failed;
};

// kernels.c
struct launched *new_launch(
    const struct program *, const unsigned grid[3], const unsigned block[3], const unsigned cluster[3],
    unsigned shared_bytes, void **parameters);
void free_launch(struct launched *);
int run_launch(struct launched *); // 0, or -1 and the error is set
void arrive_at(struct warp *, int barrier, int wanted, int waits);
_Noreturn void fail(struct warp *, const struct instruction *, const char *format, ...);

run_function run_nothing;

// memory.c: fails where it is misaligned or not there
uint8_t *at_shared(struct warp *, const struct instruction *, uint64_t address, size_t size);

// driver.c
enum place { OUTSIDE, BEHIND, INSIDE }; // behind: of a page whose beginning is allocated
enum place find_place(uint64_t address, size_t size);
uint64_t allocate(size_t size);
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);

static inline uint64_t *slot(struct warp *warp, int at)
{
    return at >= 0 ? warp->slots[at] : warp->block->program->constants[~at];
}

static inline uint64_t *operand(struct warp *warp, const struct instruction *in, int n)
{
    return slot(warp, in->operands[n].slot);
}

static inline float to_float(uint64_t bits)
{
    union { uint32_t bits; float value; } x = {.bits = (uint32_t)bits};
    return x.value;
}

static inline uint32_t of_float(float value)
{
    union { float value; uint32_t bits; } x = {.value = value};
    return x.bits;
}

static inline double to_double(uint64_t bits)
{
    union { uint64_t bits; double value; } x = {.bits = bits};
    return x.value;
}

static inline uint64_t of_double(double value)
{
    union { double value; uint64_t bits; } x = {.value = value};
    return x.bits;
}

static inline float to_float_of_bf16(uint64_t bits) { return to_float((bits & 0xffff) << 16); }

// To nearest, ties to even; a NaN becomes the canonical one, as PTX has it.
static inline uint32_t of_bf16(float value)
{
    uint32_t bits = of_float(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static const int TYPE_BYTES[TYPES] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 2, 4, 2, 4, 1};
