// The goals, as ratios within a round, and whether they are met.
#pragma once

#include "results.h"

struct Ratio {
    std::string text;
    Cell about;  // the shape, the work and the number of processes
    std::vector<double> rounds;
    bool at_least;
    double bound;  // 0: no goal
    bool met() const {
        double median = spread_of(rounds).median;
        return bound == 0 || (at_least ? median >= bound : median <= bound);
    }
};

std::vector<Ratio> ratios_of(const Results &results);
void print_ratios(FILE *out, const std::vector<Ratio> &ratios);
void write_ratios_json(FILE *out, const std::vector<Ratio> &ratios);
