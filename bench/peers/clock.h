// Time: nanoseconds for rows, ticks of the processor for single operations.
#pragma once

#include <cstdint>
#include <ctime>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

inline double now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

#if defined(__x86_64__)
inline uint64_t ticks() { return __rdtsc(); }
#else
inline uint64_t ticks() { return static_cast<uint64_t>(now_ns()); }
#endif

/// Nanoseconds of one tick, measured once.
double ns_per_tick();
