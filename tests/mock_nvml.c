/* A driver's NVML library without a GPU: the functions that the explorer calls, with the layouts of
 * nvml.h, answering what a test sets. Built by mock_nvml.py. A negative value is an error code.
 * OLD_DRIVER leaves out what drivers of 2017 do not have. */
#include <stdint.h>
#include <string.h>

#define UNINITIALIZED 1
#define NO_PERMISSION 4
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7

typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } process_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;

char mock_uuid[96] = "GPU-1234";
char mock_driver[80] = "570.133.20";
int64_t mock_energy = 9000, mock_busy = 30, mock_power_limit = 700000, mock_clock = 1200,
        mock_max_clock = 1980, mock_slowdowns = 0, mock_display = 0, mock_errors = 0,
        mock_is_slice = 0, mock_free = 40000, mock_init = 0, mock_num_gpus = 1,
        mock_others_busy = 0;
unsigned int mock_pids[8];
unsigned int mock_num_pids = 0;
static int initialised = 0;
static int gpu, others[7];

static int is_other(void *device) {
    return (int *)device >= others && (int *)device < others + 7;
}
static int answer(void *device, int64_t value) {
    if (!initialised) return UNINITIALIZED;
    if (device != &gpu && !is_other(device)) return NOT_FOUND;
    return value < 0 ? (int)-value : 0;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    initialised = mock_init >= 0;
    return initialised ? 0 : (int)-mock_init;
}
int nvmlSystemGetDriverVersion(char *text, unsigned int size) {
    if (!initialised) return UNINITIALIZED;
    strncpy(text, mock_driver, size);
    return 0;
}
int nvmlSystemGetCudaDriverVersion(int *version) {
    if (!initialised) return UNINITIALIZED;
    *version = 12080;
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (!initialised) return UNINITIALIZED;
    if (strcmp(uuid, mock_uuid)) return NOT_FOUND;
    *device = &gpu;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = mock_num_gpus;
    return initialised ? 0 : UNINITIALIZED;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= mock_num_gpus) return NOT_FOUND;
    *device = index ? &others[index - 1] : &gpu;
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int size) {
    strncpy(uuid, mock_uuid, size);
    if (is_other(device)) uuid[0] = 'O';
    return answer(device, 0);
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 80000, memory->free = mock_free, memory->used = 80000 - mock_free;
    return answer(device, mock_free);
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    rates->gpu = is_other(device) ? mock_others_busy : mock_busy, rates->memory = 77;
    return answer(device, mock_busy);
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, process_t *found) {
    unsigned int room = *count;
    int status = answer(device, 0);
    *count = mock_num_pids;
    if (status || !mock_num_pids) return status;
    if (!found || room < mock_num_pids) return INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < mock_num_pids; i++) found[i] = (process_t){mock_pids[i], 1 << 20, ~0u, ~0u};
    return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *milliwatts) {
    *milliwatts = mock_power_limit;
    return answer(device, mock_power_limit);
}
int nvmlDeviceGetClockInfo(void *device, unsigned int type, unsigned int *mhz) {
    *mhz = type == 1 ? mock_clock : 7;
    return answer(device, mock_clock);
}
int nvmlDeviceGetMaxClockInfo(void *device, unsigned int type, unsigned int *mhz) {
    *mhz = type == 1 ? mock_max_clock : 7;
    return answer(device, mock_max_clock);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    *reasons = mock_slowdowns;
    return answer(device, mock_slowdowns);
}
int nvmlDeviceGetDisplayActive(void *device, unsigned int *active) {
    *active = mock_display;
    return answer(device, mock_display);
}
int nvmlDeviceGetTotalEccErrors(void *device, unsigned int type, unsigned int counter,
                                unsigned long long *count) {
    *count = type == 1 && counter == 0 ? mock_errors : 99;
    return answer(device, mock_errors);
}
#ifndef OLD_DRIVER
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    *millijoules = mock_energy;
    return answer(device, mock_energy);
}
int nvmlDeviceIsMigDeviceHandle(void *device, unsigned int *is_slice) {
    *is_slice = mock_is_slice;
    return answer(device, mock_is_slice);
}
#endif
