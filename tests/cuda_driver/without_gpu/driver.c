// A CUDA driver without a GPU: memory is the host's, small copies are made, launches are checked and noted, and with
// WITHOUT_GPU_RUN kernels are run, from their PTX (kernels.c).
//
// With it MAX's runtime goes through all that it does on the host for an H200: it loads a model, plans memory, launches
// steps, captures and replays graphs. Where no kernels run, what one would have written stays as it is. Functions that
// are not here succeed and do nothing (stubs.c, from the names that MAX looks up). Source: CUDA driver API 13.0.
#define _GNU_SOURCE
#include "ptx.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719 };
enum { PAGE = 4096, GRANULE = 2 << 20, COPIED = 1 << 20, UNASKED_SHARED_BYTES = 48 * 1024 };
enum { SHARED_BYTES = 228 * 1024, RESERVED = 1024, REGISTERS = 65536 }; // of a multiprocessor, a block, a multiprocessor

typedef uintptr_t address;

// WITHOUT_GPU_LOG: a file for a line for each launch (with its blocks in x, y and z), capture and replay, and for what
// gives memory back, sets it, or is done beside a capture: a captured graph keeps the addresses that it was given.
void note(const char *format, ...)
{
    static FILE *file;
    const char *path = getenv("WITHOUT_GPU_LOG");
    if (path && !file && (file = fopen(path, "a")))
        setvbuf(file, NULL, _IOLBF, 0);
    va_list values;
    va_start(values, format);
    if (file)
        vfprintf(file, format, values);
    va_end(values);
}

static address new_handle(void)
{
    static address last = PAGE;
    return __sync_add_and_fetch(&last, 16);
}

// The device.

int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA H200", size); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *total, int device) { *total = 150ull << 30; return SUCCESS; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 149ull << 30; *total = 150ull << 30; return SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    static const int of_h200[][2] = {
        {1, 1024},    {2, 1024},     {3, 1024},    {4, 64},      {5, INT32_MAX}, {6, 65535},   {7, 65535},
        {8, 49152},   {9, 65536},    {10, 32},     {12, 65536},  {13, 1980000},  {16, 132},    {18, 0},      {33, 0},
        {34, 0},      {38, 62914560}, {39, 2048},  {50, 0},      {75, 9},        {76, 0},      {81, 233472},
        {82, 65536},  {97, 232448},  {106, 32},    {111, 1024},
    };
    *value = 1;
    for (size_t i = 0; i < sizeof of_h200 / sizeof *of_h200; i++)
        if (of_h200[i][0] == attribute)
            *value = of_h200[i][1];
    return SUCCESS;
}

// Contexts, streams, events: there is one of each kind for all that anybody asks.

static __thread address current;
int cuDevicePrimaryCtxRetain(address *context, int device) { *context = PAGE; return SUCCESS; }
int cuCtxGetCurrent(address *context) { *context = current; return SUCCESS; }
int cuCtxSetCurrent(address context) { current = context; return SUCCESS; }
int cuCtxPushCurrent(address context) { current = context; return SUCCESS; }
int cuCtxPopCurrent(address *context) { if (context) *context = current; return SUCCESS; }
int cuStreamCreate(address *stream, unsigned flags) { *stream = new_handle(); return SUCCESS; }
int cuStreamCreateWithPriority(address *stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
int cuEventElapsedTime(float *milliseconds, address first, address last) { *milliseconds = 1; return SUCCESS; }

static address capturing; // the stream
static int captured;      // what it was given meanwhile

static int runs_kernels(void)
{
    static int runs = -1;
    if (runs < 0)
        runs = getenv("WITHOUT_GPU_RUN") != NULL;
    return runs;
}

static void note_beside(const char *what)
{
    if (capturing)
        note("beside: %s\n", what);
}

// Memory: of the host, which gives pages when they are written.

static struct { address at; size_t size; int of_device; } regions[1 << 16];
static int region_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int reserve(address *at, size_t size, size_t alignment, int of_device)
{
    if (region_count == sizeof regions / sizeof *regions)
        return OUT_OF_MEMORY;
    void *found = mmap(NULL, size + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return OUT_OF_MEMORY;
    *at = ((address)found + alignment - 1) / alignment * alignment;
    pthread_mutex_lock(&lock);
    regions[region_count].at = *at;
    regions[region_count].size = size;
    regions[region_count++].of_device = of_device;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int find(address at)
{
    int i = region_count - 1;
    while (i >= 0 && (at < regions[i].at || at >= regions[i].at + regions[i].size))
        i--;
    return i;
}

uint64_t allocate(size_t size)
{
    address at;
    if (reserve(&at, size, PAGE, 1))
        abort();
    return at;
}

static int wait_for_all(void);

// From then on a kernel may not touch it; its pages are given back.
static int give_back(address at)
{
    note("free\n");
    if (!runs_kernels())
        return SUCCESS;
    wait_for_all();
    pthread_mutex_lock(&lock);
    int i = find(at);
    if (i >= 0 && regions[i].at == at) {
        madvise((void *)at, regions[i].size, MADV_DONTNEED);
        regions[i] = regions[--region_count];
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuMemAlloc_v2(address *at, size_t size) { return reserve(at, size, PAGE, 1); }
int cuMemAllocAsync(address *at, size_t size, address stream)
{
    note_beside("an allocation");
    return reserve(at, size, PAGE, 1);
}
int cuMemAllocHost_v2(address *at, size_t size) { return reserve(at, size, PAGE, 0); }
int cuMemHostAlloc(address *at, size_t size, unsigned flags) { return reserve(at, size, PAGE, 0); }
int cuMemHostGetDevicePointer_v2(address *at, address host, unsigned flags) { *at = host; return SUCCESS; }
int cuMemGetAllocationGranularity(size_t *size, void *properties, int option) { *size = GRANULE; return SUCCESS; }
int cuMemCreate(address *handle, size_t size, void *properties, uint64_t flags) { *handle = new_handle(); return SUCCESS; }

int cuMemFree_v2(address at) { return give_back(at); }
int cuMemFreeAsync(address at, address stream) { return give_back(at); }
int cuMemUnmap(address at, size_t size) { note("free\n"); return SUCCESS; }
int cuMemRelease(address handle) { note("free\n"); return SUCCESS; }
int cuMemAddressFree(address at, size_t size) { return give_back(at); }
int cuMemPoolTrimTo(address pool, size_t size) { note("free\n"); return SUCCESS; }
int cuMemAddressReserve(address *at, size_t size, size_t alignment, address hint, uint64_t flags)
{
    return reserve(at, size, alignment ? alignment : GRANULE, 1);
}

// Says whether a kernel may touch it: whichever allocation was last is asked first.
enum place find_place(uint64_t at, size_t size)
{
    static __thread int last;
    if (at >= regions[last].at && at + size - regions[last].at <= regions[last].size)
        return INSIDE;
    pthread_mutex_lock(&lock);
    int i = find(at);
    enum place place = OUTSIDE;
    if (i >= 0 && at + size - regions[i].at <= regions[i].size) {
        last = i;
        place = INSIDE;
    } else if (find(at / PAGE * PAGE) >= 0 && find((at + size - 1) / PAGE * PAGE) >= 0)
        place = BEHIND;
    pthread_mutex_unlock(&lock);
    return place;
}

int cuMemGetAddressRange_v2(address *at, size_t *size, address within)
{
    int i = find(within);
    if (i < 0)
        return INVALID_VALUE;
    *at = regions[i].at;
    *size = regions[i].size;
    return SUCCESS;
}

int cuPointerGetAttributes(unsigned count, const int *attributes, void **data, address at)
{
    int i = find(at);
    for (unsigned k = 0; k < count; k++)
        switch (attributes[k]) {
        case 1: *(address *)data[k] = PAGE; break;                                    // context
        case 2: *(unsigned *)data[k] = i >= 0 && regions[i].of_device ? 2 : 1; break; // memory type
        case 3: case 4: *(address *)data[k] = at; break;                              // device, host pointer
        default: *(unsigned *)data[k] = 0;
        }
    return SUCCESS;
}

// What a stream is given happens at once, or, with WITHOUT_GPU_LATE, as late as it may: in order, when somebody waits
// for it. Until then a GPU may still have to read what lies in pinned memory: a line is noted if that has changed.
// Memory of the host that is not pinned is read when a copy is begun, or written before it returns.

struct work {
    void *target;
    const void *source;
    void *kept; // what the source held when this was begun, if it is the host's
    int pinned; // whether it is read only when this happens
    size_t size;
    void (*function)(void *);
    void *data;
    struct launched *launch;
    int of_graph; // it happens again
    int is_set, element_size; // whether the target is filled with elements
    unsigned value;
};

enum { MOST_WORK = 1 << 16, PATIENCE = 1000 };
static struct work queue[MOST_WORK];
static size_t begun, done;

struct event {
    size_t end; // of the work that was begun before it
    int asked;
};

static int is_late(void) { return getenv("WITHOUT_GPU_LATE") != NULL; }

static int failed; // what a kernel did: from then on every call fails, as CUDA has it

static void run(struct launched *launch)
{
    static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&running);
    launch->stored = 0;
    if (failed)
        note("left out %s\n", launch->program->name);
    else if (!run_launch(launch))
        note("ran %s, stored %016lx\n", launch->program->name, launch->stored);
    else {
        failed = LAUNCH_FAILED;
        note("failed: %s\n", launch->error);
        fprintf(stderr, "%s\n", launch->error);
    }
    pthread_mutex_unlock(&running);
}

static void set(const struct work *work)
{
    for (size_t i = 0; i < work->size; i++)
        memcpy((char *)work->target + i * work->element_size, &work->value, work->element_size);
}

static void happen(struct work work)
{
    if (work.function)
        work.function(work.data);
    else if (work.launch) {
        run(work.launch);
        if (!work.of_graph)
            free_launch(work.launch);
    } else if (work.is_set)
        set(&work);
    else if (work.kept) {
        if (work.pinned && memcmp(work.source, work.kept, work.size))
            note("changed: %zu bytes that were still to be copied\n", work.size);
        memmove(work.target, work.pinned ? work.source : work.kept, work.size);
        free(work.kept);
    } else
        memmove(work.target, work.source, work.size);
}

static size_t all_begun(void) { return __sync_fetch_and_add(&begun, 0); }

// The host's functions are called meanwhile, which may not call the driver, as CUDA has it.
static int wait_for(size_t end)
{
    static pthread_mutex_t waiting = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&waiting);
    for (; done < end; done++)
        happen(queue[done % MOST_WORK]);
    pthread_mutex_unlock(&waiting);
    return failed;
}

static void begin(struct work work)
{
    if (!is_late()) {
        happen(work);
        return;
    }
    if (all_begun() - done >= MOST_WORK / 2) // many threads may begin at once
        wait_for(all_begun());
    pthread_mutex_lock(&lock);
    queue[begun % MOST_WORK] = work;
    __sync_fetch_and_add(&begun, 1); // behind what it tells of
    pthread_mutex_unlock(&lock);
}

// What a captured graph does, in order.
struct graph {
    struct work works[1 << 13];
    int count;
};
static struct graph *graph;

// Has it happen, or adds it to the graph that is being captured.
static void take(struct work work, address stream)
{
    if (!stream || stream != capturing)
        begin(work);
    else if (graph->count < (int)(sizeof graph->works / sizeof *graph->works)) {
        work.of_graph = 1;
        graph->works[graph->count++] = work;
    } else {
        note("failed: a graph of so many nodes\n");
        failed = LAUNCH_FAILED;
    }
}

int cuLaunchHostFunc(address stream, void (*function)(void *), void *data)
{
    take((struct work){.function = function, .data = data}, stream);
    return SUCCESS;
}

int cuEventCreate(struct event **event, unsigned flags) { *event = calloc(1, sizeof **event); return SUCCESS; }
int cuEventRecord(struct event *event, address stream) { *event = (struct event){all_begun(), 0}; return SUCCESS; }
int cuEventSynchronize(struct event *event) { return wait_for(event->end); }
int cuEventQuery(struct event *event)
{
    if (done < event->end && event->asked++ < PATIENCE) // who asks that often waits
        return NOT_READY;
    return wait_for(event->end);
}
static int wait_for_all(void) { return wait_for(all_begun()); }
int cuStreamSynchronize(address stream) { return wait_for_all(); }
int cuCtxSynchronize(void) { return wait_for_all(); }

// Copies. Where no kernels run weights are not copied, as none reads them.

static int is_of_host(const void *at, int *pinned)
{
    int i = find((address)at);
    *pinned = i >= 0 && !regions[i].of_device;
    return i < 0 || !regions[i].of_device;
}

static int copy(void *target, const void *source, size_t size, address stream)
{
    struct work work = {.target = target, .source = source, .size = size};
    if (stream && stream == capturing) {
        captured++;
        take(work, stream);
        return SUCCESS;
    }
    note_beside("a copy");
    int target_pinned;
    if (size <= COPIED || runs_kernels()) {
        if (is_late() && is_of_host(source, &work.pinned))
            work.kept = memcpy(malloc(size), source, size);
        begin(work);
    }
    return !stream || (is_of_host(target, &target_pinned) && !target_pinned) ? wait_for(all_begun()) : SUCCESS;
}

int cuMemcpyHtoD_v2(void *target, void *source, size_t size) { return copy(target, source, size, 0); }
int cuMemcpyDtoH_v2(void *target, void *source, size_t size) { return copy(target, source, size, 0); }
int cuMemcpyDtoD_v2(void *target, void *source, size_t size) { return copy(target, source, size, 0); }
int cuMemcpyHtoDAsync_v2(void *target, void *source, size_t size, address s) { return copy(target, source, size, s); }
int cuMemcpyDtoHAsync_v2(void *target, void *source, size_t size, address s) { return copy(target, source, size, s); }
int cuMemcpyDtoDAsync_v2(void *target, void *source, size_t size, address s) { return copy(target, source, size, s); }

int cuMemcpyBatchAsync(
    void **targets, void **sources, size_t *sizes, size_t count, void *a, size_t *b, size_t c, size_t *failed, address stream)
{
    for (size_t i = 0; i < count; i++)
        copy(targets[i], sources[i], sizes[i], stream);
    return SUCCESS;
}

static int set_memory(void *target, unsigned value, int element_size, size_t count, address stream)
{
    note("set\n");
    if (runs_kernels())
        take((struct work){.target = target, .size = count, .is_set = 1, .element_size = element_size, .value = value}, stream);
    return SUCCESS;
}

int cuMemsetD8Async(void *at, unsigned char value, size_t count, address stream) { return set_memory(at, value, 1, count, stream); }
int cuMemsetD16Async(void *at, unsigned short value, size_t count, address stream) { return set_memory(at, value, 2, count, stream); }
int cuMemsetD32Async(void *at, unsigned value, size_t count, address stream) { return set_memory(at, value, 4, count, stream); }

// Kernels, known by their names. What is run is PTX, which MAX gives where its assembler has left it as it is.

struct function {
    char name[256];
    int shared_bytes;
    struct program *program;
};

int cuModuleLoadDataEx(struct program **module, const char *image, unsigned n, int *o, void **v)
{
    *module = runs_kernels() && memcmp(image, "\177ELF", 4) ? parse_program(image) : NULL;
    if (*module)
        return SUCCESS;
    *module = (struct program *)new_handle();
    if (runs_kernels())
        fprintf(stderr, "WITHOUT_GPU_RUN: a kernel that is no PTX; MODULAR_NVPTX_COMPILER_PATH must name ptxas.sh\n");
    return runs_kernels() ? INVALID_VALUE : SUCCESS;
}

int cuModuleGetFunction(struct function **function, struct program *module, const char *name)
{
    if (runs_kernels() && strcmp(module->name, name))
        return NOT_FOUND;
    *function = calloc(1, sizeof **function);
    (*function)->program = runs_kernels() ? module : NULL;
    strncpy((*function)->name, name, sizeof (*function)->name - 1);
    (*function)->shared_bytes = UNASKED_SHARED_BYTES;
    return SUCCESS;
}

int cuModuleGetGlobal_v2(address *at, size_t *size, address module, const char *name)
{
    if (runs_kernels())
        return NOT_FOUND;
    if (size)
        *size = PAGE;
    return reserve(at, PAGE, PAGE, 1);
}

int cuFuncGetAttribute(int *value, int attribute, struct function *function)
{
    static const int values[] = {1024, 0, 0, 0, 56, 90, 90}; // threads, shared, constant and local bytes, registers, 9.0
    *value = attribute < 7 ? values[attribute] : 0;
    return SUCCESS;
}

int cuFuncSetAttribute(struct function *function, int attribute, int value)
{
    if (attribute == 8) // dynamic shared memory, at most
        function->shared_bytes = value;
    return attribute == 8 && value > 232448 ? INVALID_VALUE : SUCCESS;
}

// Asked for one parameter after the other, until there is none.
int cuFuncGetParamInfo(struct function *function, size_t index, size_t *offset, size_t *size) { return INVALID_VALUE; }

// WITHOUT_GPU_SHARED_BYTES: what a multiprocessor has of it, if not what an H200's has.
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, struct function *f, int threads, size_t shared_bytes)
{
    const char *asked = getenv("WITHOUT_GPU_SHARED_BYTES");
    int registers, by_shared_bytes = (asked ? atoi(asked) : SHARED_BYTES) / (RESERVED + (int)shared_bytes);
    cuFuncGetAttribute(&registers, 4, f);
    *blocks = REGISTERS / (registers * threads);
    if (*blocks > by_shared_bytes)
        *blocks = by_shared_bytes;
    return SUCCESS;
}

struct attribute {
    int id, padding;
    unsigned value[16];
};

struct launch {
    unsigned grid[3], block[3], shared_bytes;
    address stream;
    struct attribute *attributes;
    unsigned attribute_count;
};

int cuLaunchKernelEx(const struct launch *launch, struct function *function, void **parameters, void **extra)
{
    const unsigned *grid = launch->grid, *block = launch->block;
    unsigned cluster[3] = {0};
    int valid = grid[0] && grid[1] && grid[2] && grid[0] <= INT32_MAX && grid[1] <= 65535 && grid[2] <= 65535;
    valid = valid && block[0] * block[1] * block[2] - 1u < 1024 && launch->shared_bytes <= function->shared_bytes;
    for (unsigned i = 0; i < launch->attribute_count; i++)
        if (launch->attributes[i].id == 4) { // the cluster's dimensions
            memcpy(cluster, launch->attributes[i].value, sizeof cluster);
            valid = valid && cluster[0] && grid[0] % cluster[0] == 0;
        }
        else if (launch->attributes[i].id == 14)
            note("percent of shared memory %s %u\n", function->name, launch->attributes[i].value[0]);
    note("%s %s %u %u %u\n", valid ? "launch" : "refused", function->name, grid[0], grid[1], grid[2]);
    if (launch->stream && launch->stream == capturing)
        captured++;
    else
        note_beside("a launch");
    if (!valid)
        return INVALID_VALUE;
    if (function->program)
        take((struct work){.launch = new_launch(function->program, grid, block, cluster, launch->shared_bytes, parameters)},
             launch->stream);
    return failed;
}

int cuLaunchKernel(
    struct function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared_bytes, address stream, void **parameters, void **extra)
{
    struct launch launch = {{gx, gy, gz}, {bx, by, bz}, shared_bytes, stream, NULL, 0};
    return cuLaunchKernelEx(&launch, function, parameters, extra);
}

int cuTensorMapEncodeTiled(
    void *map, int data_type, unsigned rank, void *address, const uint64_t *sizes, const uint64_t *strides, const unsigned *box,
    const unsigned *element_strides, int interleave, int swizzle, int promotion, int fill)
{
    static const uint8_t element_sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4}; // by CU_TENSOR_MAP_DATA_TYPE_...
    if (data_type > 12 || rank > 5 || interleave || swizzle > 3 || fill)
        return INVALID_VALUE;
    struct tensor_map made = {TENSOR_MAP, rank, element_sizes[data_type], swizzle, .address = (uintptr_t)address};
    for (unsigned k = 0; k < rank; k++) {
        if (element_strides[k] != 1)
            return INVALID_VALUE;
        made.sizes[k] = sizes[k];
        made.box[k] = box[k];
        if (k)
            made.strides[k - 1] = strides[k - 1];
    }
    memcpy(map, &made, sizeof made);
    return SUCCESS;
}

// Graphs.

int cuStreamBeginCapture(address stream, int mode)
{
    capturing = stream;
    captured = 0;
    graph = calloc(1, sizeof *graph);
    note("begin capture\n");
    return SUCCESS;
}

int cuStreamEndCapture(address stream, struct graph **made)
{
    note("captured %d\n", captured);
    capturing = 0;
    *made = graph;
    return SUCCESS;
}

int cuStreamIsCapturing(address stream, int *status) { *status = stream && stream == capturing; return SUCCESS; }

int cuStreamGetCaptureInfo_v2(
    address stream, int *status, uint64_t *id, address *graph, void ***dependencies, size_t *count)
{
    static void *none[1];
    if (id)
        *id = 1;
    if (graph)
        *graph = PAGE;
    if (dependencies)
        *dependencies = none;
    if (count)
        *count = 0;
    return cuStreamIsCapturing(stream, status);
}

int cuGraphCreate(struct graph **made, unsigned flags) { *made = calloc(1, sizeof **made); return SUCCESS; }
int cuGraphInstantiate(struct graph **instance, struct graph *of, uint64_t flags) { *instance = of; return SUCCESS; }
int cuGraphInstantiateWithFlags(struct graph **instance, struct graph *of, uint64_t flags) { *instance = of; return SUCCESS; }
int cuGraphInstantiateWithParams(struct graph **instance, struct graph *of, void *p) { *instance = of; return SUCCESS; }

int cuGraphLaunch(struct graph *instance, address stream)
{
    note("replay\n");
    for (int i = 0; i < instance->count; i++)
        begin(instance->works[i]);
    return failed;
}

int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR"; return SUCCESS; }
int cuGetErrorString(int error, const char **text) { *text = "an error of the driver without a GPU"; return SUCCESS; }
