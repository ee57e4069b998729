// What MAX asks NVML about the one GPU of driver.c.
#include <string.h>

int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex(unsigned index, void **device) { *device = (void *)8; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)8; return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { strncpy(name, "NVIDIA H200", size); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) { *count = 0; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *mode) { *mode = 0; return 0; }
int nvmlDeviceGetPciInfo_v3(void *device, void *info) { memset(info, 0, 68); return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { strncpy(version, "580.0", size); return 0; }

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory)
{
    memory[0] = 150ull << 30, memory[1] = 149ull << 30, memory[2] = 1ull << 30;
    return 0;
}

const char *nvmlErrorString(int error) { return "an error"; }
