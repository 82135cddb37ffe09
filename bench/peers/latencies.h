// How long single operations took: a histogram of fixed size, so that processes can share it, exact to 1.6%,
// and the worst one exactly.
#pragma once

#include <cstddef>
#include <cstdint>

class Latencies {
public:
    void record(uint64_t ticks) {
        counts_[bin_of(ticks)]++;
        if (ticks > worst_) worst_ = ticks;
    }
    void add(const Latencies &other);
    /// Nanoseconds that the given part of all operations did not exceed; 1 gives the worst.
    double quantile_ns(double part) const;

private:
    static constexpr unsigned FINE_BITS = 6, FINE = 1u << FINE_BITS, BINS = (64 - FINE_BITS + 1) * FINE;

    static unsigned bin_of(uint64_t ticks) {
        if (ticks < FINE) return static_cast<unsigned>(ticks);
        unsigned shift = 63u - static_cast<unsigned>(__builtin_clzll(ticks)) - FINE_BITS;
        return (shift + 1) * FINE + static_cast<unsigned>(ticks >> shift) - FINE;
    }
    static double upper_end(unsigned bin);

    uint64_t counts_[BINS] = {};
    uint64_t worst_ = 0;
};
