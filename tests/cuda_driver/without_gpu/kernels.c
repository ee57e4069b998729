// Launches: blocks of a grid take turns, and within a block its warps; a warp's lanes that stand at the lowest
// instruction run.
#include "ptx.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN = 4096, ROUNDS = 64, VAIN_ROUNDS = 100000 };

_Noreturn void fail(struct warp *warp, const struct instruction *in, const char *format, ...)
{
    struct launched *launch = warp->block->launch;
    const unsigned *index = warp->block->index;
    char what[512];
    va_list values;
    va_start(values, format);
    vsnprintf(what, sizeof what, format, values);
    va_end(values);
    snprintf(
        launch->error, sizeof launch->error, "%s, block %u %u %u, warp %d, lanes %08x: %.400s: %s", launch->program->name,
        index[0], index[1], index[2], warp->number, warp->active, in ? in->text : "", what);
    longjmp(launch->failed, 1);
}

struct launched *new_launch(
    const struct program *program, const unsigned grid[3], const unsigned block[3], const unsigned cluster[3],
    unsigned shared_bytes, void **parameters)
{
    struct launched *launch = calloc(1, sizeof *launch);
    launch->program = program;
    for (int i = 0; i < 3; i++) {
        launch->grid[i] = grid[i];
        launch->block[i] = block[i];
        launch->cluster[i] = cluster[i] ? cluster[i] : program->cluster[i] ? program->cluster[i] : 1;
    }
    launch->shared_bytes = shared_bytes;
    launch->parameters = aligned_alloc(64, (program->parameter_bytes + 127) / 64 * 64);
    for (int i = 0; i < program->parameter_count; i++)
        memcpy(launch->parameters + program->parameters[i].at, parameters[i], program->parameters[i].size);
    return launch;
}

void free_launch(struct launched *launch)
{
    free(launch->parameters);
    free(launch);
}

// Warps.

static void fill(lanes *slots, int slot, uint64_t value)
{
    if (slot != NONE)
        for (int i = 0; i < LANES; i++)
            slots[slot][i] = value;
}

static void begin_warp(struct warp *warp, struct block *block, int number)
{
    const struct program *program = block->program;
    const struct launched *launch = block->launch;
    const unsigned *of_block = launch->block;
    int threads = of_block[0] * of_block[1] * of_block[2];
    *warp = (struct warp){.block = block, .number = number, .waiting = NONE};
    warp->slots = aligned_alloc(64, (program->slot_count + 1) * sizeof *warp->slots);
    memset(warp->slots, 0xcd, program->slot_count * sizeof *warp->slots); // what nobody has set is no zero
    if (program->local_bytes)
        warp->local = aligned_alloc(64, LANES * program->local_bytes);
    const int *special = program->special;
    unsigned rank[3];
    for (int i = 0; i < 3; i++) {
        rank[i] = block->index[i] % launch->cluster[i];
        fill(warp->slots, special[NTID + i], of_block[i]);
        fill(warp->slots, special[CTAID + i], block->index[i]);
        fill(warp->slots, special[NCTAID + i], launch->grid[i]);
        fill(warp->slots, special[CLUSTER_CTAID + i], rank[i]);
        fill(warp->slots, special[CLUSTER_NCTAID + i], launch->cluster[i]);
        fill(warp->slots, special[CLUSTERID + i], block->index[i] / launch->cluster[i]);
        fill(warp->slots, special[NCLUSTERID + i], launch->grid[i] / launch->cluster[i]);
    }
    fill(warp->slots, special[WARPID], number);
    fill(warp->slots, special[LOCAL], 0);
    fill(warp->slots, special[CLUSTER_CTARANK], block->rank);
    fill(warp->slots, special[CLUSTER_NCTARANK], block->cluster->size);
    for (int i = 0; i < program->parameter_count; i++)
        fill(warp->slots, program->parameters[i].slot, program->parameters[i].at);
    for (int i = 0; i < LANES; i++) {
        unsigned thread = number * LANES + i;
        if (thread < (unsigned)threads)
            warp->alive |= 1u << i;
        unsigned tid[3] = {thread % of_block[0], thread / of_block[0] % of_block[1], thread / of_block[0] / of_block[1]};
        for (int axis = 0; axis < 3; axis++)
            if (special[TID + axis] != NONE)
                warp->slots[special[TID + axis]][i] = tid[axis];
        if (special[LANEID] != NONE)
            warp->slots[special[LANEID]][i] = i;
    }
    warp->active = warp->alive;
}

// Picks the lanes that stand lowest, when some have branched or returned. Lanes at an instruction for the whole warp
// wait there for the others, and those that asked a barrier in vain let others come first.
static void regroup(struct warp *warp)
{
    const struct instruction *instructions = warp->block->program->instructions;
    for (int i = 0; i < LANES; i++)
        if (warp->active >> i & 1)
            warp->places[i] = warp->at;
    uint32_t candidates = warp->alive & ~warp->asked;
    int is_last = 0;
    if (!candidates) {
        candidates = warp->alive;
        warp->asked = 0;
    }
    for (uint32_t left = candidates; left;) {
        int lowest = INT32_MAX;
        for (int i = 0; i < LANES; i++)
            if (left >> i & 1 && warp->places[i] < lowest)
                lowest = warp->places[i];
        uint32_t there = 0;
        for (int i = 0; i < LANES; i++)
            there |= (uint32_t)(warp->alive >> i & 1 && warp->places[i] == lowest) << i;
        left &= ~there;
        if (there == warp->alive || !instructions[lowest].whole_warp || is_last) {
            warp->active = there;
            warp->at = lowest;
            return;
        }
        if (!left && !is_last) { // all wait for each other: what may be done by some, or an error, comes first
            is_last = !warp->asked;
            warp->asked = 0;
            left = warp->alive;
        }
    }
}

static void run_branch(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    if (mask == warp->active)
        warp->at = in->target;
    else {
        uint32_t others = warp->active & ~mask;
        for (int i = 0; i < LANES; i++)
            if (warp->active >> i & 1)
                warp->places[i] = others >> i & 1 ? warp->at : in->target;
        warp->active = 0;
        regroup(warp);
    }
}

static void run_return(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    warp->alive &= ~mask;
    warp->active &= ~mask;
}

static void run_trap(struct warp *warp, const struct instruction *in, uint32_t mask) { fail(warp, in, "a trap"); }

static void run_unknown(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    fail(warp, in, "an instruction that is not known here");
}

void run_nothing(struct warp *warp, const struct instruction *in, uint32_t mask) {}

static void run_pause(struct warp *warp, const struct instruction *in, uint32_t mask) { warp->yields = 1; }

// Barriers of a block: id, and how many threads, or all.
enum { SYNC, ARRIVE };

static void release(struct block *block, int id)
{
    block->barriers[id].there = 0;
    for (int i = 0; i < block->warp_count; i++)
        if (block->warps[i].waiting == id)
            block->warps[i].waiting = NONE;
}

void arrive_at(struct warp *warp, int id, int wanted, int waits)
{
    struct named_barrier *barrier = &warp->block->barriers[id];
    barrier->wanted = wanted;
    barrier->there += LANES;
    if (waits)
        warp->waiting = id;
    if (barrier->there >= wanted)
        release(warp->block, id);
}

static void run_barrier(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    struct block *block = warp->block;
    if (mask != warp->alive)
        fail(warp, in, "a part of a warp alone");
    int id = (int)operand(warp, in, 0)[__builtin_ctz(mask)];
    int wanted = in->count > 1 ? (int)operand(warp, in, 1)[__builtin_ctz(mask)] : block->warp_count * LANES;
    if (id < 0 || id > 15)
        fail(warp, in, "no barrier %d", id);
    if (block->barriers[id].there && block->barriers[id].wanted != wanted)
        fail(warp, in, "of %d threads, others wait for %d", wanted, block->barriers[id].wanted);
    arrive_at(warp, id, wanted, in->kind == SYNC);
}

// The cluster's barrier: arriving and waiting are apart; a warp that waits in vain asks again.
static void run_cluster_arrive(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    struct cluster *cluster = warp->block->cluster;
    if (mask != warp->alive)
        fail(warp, in, "a part of a warp alone");
    if (++cluster->there == cluster->size * warp->block->warp_count) {
        cluster->there = 0;
        cluster->phase++;
    }
}

static void run_cluster_wait(struct warp *warp, const struct instruction *in, uint32_t mask)
{
    if (warp->block->cluster->phase > warp->cluster_waits)
        warp->cluster_waits++;
    else {
        warp->at--;
        warp->yields = 1;
    }
}

run_function *find_control(struct instruction *in)
{
    static const struct { const char *prefix; run_function *run; int kind; } known[] = {
        {"bra", run_branch}, {"ret", run_return}, {"exit", run_return}, {"trap", run_trap}, {"nanosleep", run_pause},
        {"bar.sync", run_barrier, SYNC}, {"barrier.sync", run_barrier, SYNC}, {"bar.arrive", run_barrier, ARRIVE},
        {"barrier.arrive", run_barrier, ARRIVE}, {"barrier.cluster.arrive", run_cluster_arrive},
        {"barrier.cluster.wait", run_cluster_wait}, {"bar.warp.sync", run_nothing}, {"fence", run_nothing},
        {"membar", run_nothing}, {"griddepcontrol", run_nothing}, {"prefetch", run_nothing}, {"setmaxnreg", run_nothing},
        {"discard", run_nothing}, {"applypriority", run_nothing}, {"pmevent", run_nothing},
        {"cp.async.commit_group", run_nothing}, {"cp.async.wait_group", run_nothing}, {"cp.async.wait_all", run_nothing},
        {"wgmma.fence", run_nothing}, {"wgmma.commit_group", run_nothing}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i].prefix);
        if (!strncmp(in->opcode, known[i].prefix, length) && (!in->opcode[length] || in->opcode[length] == '.')) {
            in->kind = known[i].kind;
            return known[i].run;
        }
    }
    return NULL;
}

run_function *find_compute(struct instruction *), *find_memory(struct instruction *), *find_matrix(struct instruction *);

void find_run_function(struct instruction *in, int is_known)
{
    static const char *const for_whole_warps[] = {
        "wgmma", "mma.sync", "ldmatrix", "stmatrix", "movmatrix", "setmaxnreg", "bar.sync", "barrier.sync", "bar.warp.sync",
        "shfl.sync", "redux.sync", "vote.sync", "elect.sync", "barrier.cluster"};
    for (size_t i = 0; i < sizeof for_whole_warps / sizeof *for_whole_warps; i++)
        in->whole_warp |= !strncmp(in->opcode, for_whole_warps[i], strlen(for_whole_warps[i]));
    run_function *(*const finders[])(struct instruction *) = {find_control, find_compute, find_memory, find_matrix};
    in->run = NULL;
    for (int i = 0; i < 4 && !in->run; i++)
        in->run = finders[i](in);
    if (!in->run || !is_known)
        in->run = run_unknown;
}

// A warp's turn: until it waits, has returned, asks in vain, or has run for long.
static void run_turn(struct warp *warp)
{
    const struct instruction *instructions = warp->block->program->instructions;
    warp->yields = 0;
    for (int n = 0; n < TURN && warp->alive && warp->waiting == NONE && !warp->yields; n++) {
        const struct instruction *in = &instructions[warp->at];
        uint32_t mask = warp->active;
        if (in->guard != NONE) {
            const uint64_t *predicate = slot(warp, in->guard);
            uint32_t set = 0;
            for (int i = 0; i < LANES; i++)
                set |= (uint32_t)(predicate[i] & 1) << i;
            mask &= in->negated ? ~set : set;
        }
        warp->at++;
        if (mask)
            in->run(warp, in, mask);
        if (warp->active != warp->alive && warp->alive)
            regroup(warp);
    }
}

// Runs a block's warps as long as any gets on, but not for ever, as one may wait for another block; says whether any did.
static int run_block(struct block *block)
{
    int progress = 0;
    for (int again = 1, rounds = 0; again && !block->done && rounds < ROUNDS; rounds++) {
        again = 0;
        block->done = 1;
        for (int i = 0; i < block->warp_count; i++) {
            struct warp *warp = &block->warps[i];
            if (warp->alive && warp->waiting == NONE) {
                run_turn(warp);
                again |= !warp->yields;
            }
            block->done &= !warp->alive;
        }
        progress |= again;
    }
    return progress;
}

static void begin_block(struct block *block, struct launched *launch, struct cluster *cluster, unsigned number)
{
    const unsigned *threads = launch->block;
    block->program = launch->program;
    block->launch = launch;
    block->cluster = cluster;
    block->index[0] = number % launch->grid[0];
    block->index[1] = number / launch->grid[0] % launch->grid[1];
    block->index[2] = number / launch->grid[0] / launch->grid[1];
    block->rank = block->index[0] % cluster->size;
    block->shared_bytes = (block->program->shared_bytes + 1023) / 1024 * 1024 + launch->shared_bytes;
    block->shared = aligned_alloc(1024, (block->shared_bytes + 1024) / 1024 * 1024);
    memset(block->shared, 0xcd, block->shared_bytes);
    block->warp_count = (threads[0] * threads[1] * threads[2] + LANES - 1) / LANES;
    block->warps = calloc(block->warp_count, sizeof *block->warps);
    for (int i = 0; i < block->warp_count; i++)
        begin_warp(&block->warps[i], block, i);
}

static struct cluster *begin_cluster(struct launched *launch, unsigned number)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    cluster->size = launch->cluster[0];
    cluster->blocks = calloc(cluster->size, sizeof *cluster->blocks);
    for (int i = 0; i < cluster->size; i++)
        begin_block(&cluster->blocks[i], launch, cluster, number * cluster->size + i);
    return cluster;
}

static void end_cluster(struct cluster *cluster)
{
    for (struct block *block = cluster->blocks; block < cluster->blocks + cluster->size; block++) {
        for (int i = 0; i < block->warp_count; i++) {
            free(block->warps[i].slots);
            free(block->warps[i].local);
        }
        free(block->warps);
        free(block->shared);
    }
    free(cluster->blocks);
    free(cluster);
}

static int is_done(const struct cluster *cluster)
{
    int done = 1;
    for (int i = 0; i < cluster->size; i++)
        done &= cluster->blocks[i].done;
    return done;
}

// One more cluster begins whenever all that are there have come as far as they can.
static void run_clusters(struct launched *launch)
{
    unsigned count = launch->grid[0] * launch->grid[1] * launch->grid[2] / launch->cluster[0];
    launch->clusters = calloc(count, sizeof *launch->clusters);
    int in_vain = 0;
    for (unsigned begun = 0; begun < count || launch->resident;) {
        if (begun < count)
            launch->clusters[launch->resident++] = begin_cluster(launch, begun++);
        int progress = begun < count;
        for (unsigned i = 0; i < launch->resident; i++)
            for (int k = 0; k < launch->clusters[i]->size; k++)
                progress |= run_block(&launch->clusters[i]->blocks[k]);
        unsigned kept = 0;
        for (unsigned i = 0; i < launch->resident; i++)
            if (is_done(launch->clusters[i]))
                end_cluster(launch->clusters[i]);
            else
                launch->clusters[kept++] = launch->clusters[i];
        launch->resident = kept;
        in_vain = progress ? 0 : in_vain + 1;
        if (kept && in_vain > VAIN_ROUNDS) {
            struct block *block = launch->clusters[0]->blocks;
            while (block->done)
                block++;
            struct warp *warp = block->warps;
            while (!warp->alive)
                warp++;
            fail(warp, &launch->program->instructions[warp->at - !!warp->at], "nothing goes on");
        }
    }
}

int run_launch(struct launched *launch)
{
    int result = -1;
    if (launch->cluster[1] != 1 || launch->cluster[2] != 1 || launch->grid[0] % launch->cluster[0])
        snprintf(launch->error, sizeof launch->error, "%s: a cluster that is not along x", launch->program->name);
    else if (!setjmp(launch->failed)) {
        run_clusters(launch);
        result = 0;
    }
    while (launch->resident)
        end_cluster(launch->clusters[--launch->resident]);
    free(launch->clusters);
    launch->clusters = NULL;
    return result;
}
