// What was measured: a value for each round of each cell; medians and ratios of them, as tables and as JSON.
#pragma once

#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "content.h"

/// What a figure is about.
struct Cell {
    std::string system, work;
    size_t key_size = 0, value_size = 0, keys = 0;
    unsigned processes = 1;
    std::string distribution;  // "uniform", "zipfian", "latest"
    std::string measure;       // "ns", "p50" to "p99.99" and "worst" in ns, "bytes", "faults", "processor_ns"

    auto order() const { return std::tie(key_size, value_size, keys, work, distribution, processes, measure, system); }
    bool operator<(const Cell &other) const { return order() < other.order(); }
};

struct Spread {
    double median, least, most;
};
Spread spread_of(std::vector<double> values);

struct Row {
    std::vector<double> rounds;  // NAN where a round has none
    size_t operations = 0, held = 0;
};

class Results {
public:
    void put(const Cell &cell, size_t round, double value, size_t operations, size_t held);
    const std::map<Cell, Row> &rows() const { return rows_; }
    /// The values of a within b, round by round; nothing if one is missing.
    std::optional<std::vector<double>> ratio(const Cell &a, const Cell &b) const;

    void print(FILE *out) const;
    void write_json(FILE *out) const;

private:
    std::map<Cell, Row> rows_;
};

/// The machine, as a JSON object without braces.
std::string machine_json();
std::string quoted(const std::string &text);
