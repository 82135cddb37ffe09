#include "latencies.h"

#include <algorithm>
#include <cmath>

#include "clock.h"

double ns_per_tick() {
    static const double measured = [] {
        double start = now_ns();
        uint64_t first = ticks();
        while (now_ns() - start < 5e7) {}
        return (now_ns() - start) / static_cast<double>(ticks() - first);
    }();
    return measured;
}

double Latencies::upper_end(unsigned bin) {
    if (bin < FINE) return bin;
    unsigned shift = bin / FINE - 1;
    return std::ldexp(static_cast<double>(bin % FINE + FINE) + 1, static_cast<int>(shift)) - 1;
}

void Latencies::add(const Latencies &other) {
    for (unsigned bin = 0; bin < BINS; bin++) counts_[bin] += other.counts_[bin];
    worst_ = std::max(worst_, other.worst_);
}

double Latencies::quantile_ns(double part) const {
    double worst = static_cast<double>(worst_);
    if (part >= 1) return worst * ns_per_tick();
    uint64_t all = 0, seen = 0;
    for (uint64_t count : counts_) all += count;
    for (unsigned bin = 0; bin < BINS; bin++) {
        seen += counts_[bin];
        if (static_cast<double>(seen) >= part * static_cast<double>(all)) {
            return std::min(upper_end(bin), worst) * ns_per_tick();
        }
    }
    return worst * ns_per_tick();
}
