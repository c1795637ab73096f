/* Counts and, on request, slows down fsync and fdatasync of every process it is preloaded into.
 *
 * SYNC_SHIM_DIR names a folder. Each process maps a file of its own there, <pid>.counts (four 64-bit
 * counters: fsync, fdatasync, nanoseconds inside both, nanoseconds of injected delay), and the shared
 * file `delay` (one 64-bit number: microseconds to sleep before each call). Both are mapped when the
 * process starts, so a process that locks itself down later keeps counting, and the delay can be
 * changed while it runs. A child forked without exec counts in its parent's file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FSYNC, FDATASYNC, INSIDE, DELAYED };

static uint64_t unshared[8];
static uint64_t *counts = unshared;
static const volatile uint64_t *delay_us;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void *map(const char *path, int flags, int protection) {
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0) return NULL;
    if ((flags & O_CREAT) && ftruncate(fd, 4096) != 0) { close(fd); return NULL; }
    void *at = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

__attribute__((constructor)) static void begin(void) {
    char path[4096];
    const char *folder = getenv("SYNC_SHIM_DIR");
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (folder == NULL) return;
    snprintf(path, sizeof path, "%s/%d.counts", folder, (int)getpid());
    uint64_t *mine = map(path, O_RDWR | O_CREAT, PROT_READ | PROT_WRITE);
    if (mine != NULL) counts = mine;
    snprintf(path, sizeof path, "%s/delay", folder);
    delay_us = map(path, O_RDONLY, PROT_READ);
}

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int counted(int which, int (*real)(int), int fd) {
    uint64_t begun = clock_ns();
    uint64_t wait = delay_us != NULL ? *delay_us : 0;
    if (wait > 0) {
        struct timespec t = {(time_t)(wait / 1000000), (long)(wait % 1000000) * 1000};
        nanosleep(&t, NULL);
        __atomic_fetch_add(&counts[DELAYED], clock_ns() - begun, __ATOMIC_RELAXED);
    }
    int result = real(fd);
    __atomic_fetch_add(&counts[which], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&counts[INSIDE], clock_ns() - begun, __ATOMIC_RELAXED);
    return result;
}

int fsync(int fd) { return counted(FSYNC, real_fsync, fd); }
int fdatasync(int fd) { return counted(FDATASYNC, real_fdatasync, fd); }
