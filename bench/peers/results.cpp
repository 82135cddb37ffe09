#include "results.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>

Spread spread_of(std::vector<double> values) {
    values.erase(std::remove_if(values.begin(), values.end(), [](double v) { return std::isnan(v); }), values.end());
    if (values.empty()) return {NAN, NAN, NAN};
    std::sort(values.begin(), values.end());
    return {values[values.size() / 2], values.front(), values.back()};
}

void Results::put(const Cell &cell, size_t round, double value, size_t operations, size_t held) {
    Row &row = rows_[cell];
    row.rounds.resize(std::max(row.rounds.size(), round + 1), NAN);
    row.rounds[round] = value;
    row.operations = operations;
    row.held = held;
}

std::optional<std::vector<double>> Results::ratio(const Cell &a, const Cell &b) const {
    auto above = rows_.find(a), below = rows_.find(b);
    if (above == rows_.end() || below == rows_.end()) return {};
    std::vector<double> ratios;
    size_t rounds = std::min(above->second.rounds.size(), below->second.rounds.size());
    for (size_t r = 0; r < rounds; r++) ratios.push_back(above->second.rounds[r] / below->second.rounds[r]);
    return ratios;
}

static std::string title(const Cell &cell) {
    std::string text = cell.work;
    if (cell.distribution != "uniform") text += ", " + cell.distribution;
    if (cell.processes > 1) text += ", " + std::to_string(cell.processes) + " processes";
    if (cell.measure == "bytes") text += ": bytes";
    if (cell.measure == "faults") text += ": minor page faults";
    if (cell.measure == "processor_ns") text += ": ns of the processor, user and system";
    return text;
}

/// One line for the percentiles of a system: medians of all rounds.
static void print_percentiles(FILE *out, const Results &results, Cell cell) {
    fprintf(out, "    %-10s", cell.system.c_str());
    for (const char *measure : {"p50", "p90", "p99", "p99.9", "p99.99", "worst"}) {
        cell.measure = measure;
        Spread s = spread_of(results.rows().at(cell).rounds);
        fprintf(out, "  %s %.0f", measure, s.median);
        if (cell.measure == "worst") fprintf(out, " (%.0f to %.0f)", s.least, s.most);
    }
    fprintf(out, "\n");
}

void Results::print(FILE *out) const {
    const Cell *last = nullptr;
    for (const auto &[cell, row] : rows_) {
        bool percentile = cell.measure[0] == 'p' && std::isdigit(cell.measure[1]);
        if (cell.measure == "worst" || (percentile && cell.measure != "p50")) continue;
        bool new_shape = !last || std::tie(cell.key_size, cell.value_size, cell.keys) !=
                                      std::tie(last->key_size, last->value_size, last->keys);
        if (new_shape) {
            fprintf(out, "\n==== %zu keys of %zu bytes, values of %zu bytes", cell.keys, cell.key_size, cell.value_size);
            fprintf(out, ": ns per operation of all processes, median (least to most)\n");
        }
        if (new_shape || title(*last) != title(cell)) fprintf(out, "%s\n", title(cell).c_str());
        last = &cell;
        if (percentile) {
            print_percentiles(out, *this, cell);
            continue;
        }
        Spread s = spread_of(row.rounds);
        fprintf(out, "    %-10s %12.1f   (%.1f to %.1f)", cell.system.c_str(), s.median, s.least, s.most);
        if (row.held != cell.keys) fprintf(out, "   holds %zu keys", row.held);
        fprintf(out, "\n");
    }
}

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (static_cast<unsigned char>(c) >= ' ') out += c;
    }
    return out + "\"";
}

void Results::write_json(FILE *out) const {
    for (const auto &[cell, row] : rows_) {
        fprintf(out,
                "{\"kind\":\"cell\",\"system\":%s,\"work\":%s,\"key_bytes\":%zu,\"value_bytes\":%zu,\"keys\":%zu,\"held\":%zu,"
                "\"processes\":%u,\"distribution\":%s,\"measure\":%s,\"operations\":%zu,\"rounds\":[",
                quoted(cell.system).c_str(), quoted(cell.work).c_str(), cell.key_size, cell.value_size, cell.keys, row.held,
                cell.processes, quoted(cell.distribution).c_str(), quoted(cell.measure).c_str(), row.operations);
        const char *comma = "";
        for (double value : row.rounds) {
            if (std::isnan(value)) fprintf(out, "%snull", comma);
            else fprintf(out, "%s%.6g", comma, value);
            comma = ",";
        }
        fprintf(out, "]}\n");
    }
}

static std::string first_match(const char *file, const std::string &prefix) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        if (line.compare(0, prefix.size(), prefix) == 0) {
            size_t at = line.find_first_not_of(" \t:", prefix.size());
            return at == std::string::npos ? "" : line.substr(at);
        }
    }
    return "unknown";
}

/// What the kernel says is this processor's; sysconf may give the sum of more than there are.
static long l3_bytes() {
    std::string size = first_match("/sys/devices/system/cpu/cpu0/cache/index3/size", "");
    long number = std::atol(size.c_str());
    if (number <= 0) return sysconf(_SC_LEVEL3_CACHE_SIZE);
    return number * (size.back() == 'M' ? 1 << 20 : size.back() == 'K' ? 1 << 10 : 1);
}

std::string machine_json() {
    utsname system = {};
    uname(&system);
    std::string load = first_match("/proc/loadavg", ""), name = first_match("/etc/os-release", "PRETTY_NAME=\"");
    std::string huge = first_match("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "");
    size_t chosen = huge.find('[') + 1;
    return "\"processor\":" + quoted(first_match("/proc/cpuinfo", "model name")) +
           ",\"processors\":" + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + ",\"l2_bytes\":" +
           std::to_string(sysconf(_SC_LEVEL2_CACHE_SIZE)) + ",\"l3_bytes\":" + std::to_string(l3_bytes()) +
           ",\"memory\":" + quoted(first_match("/proc/meminfo", "MemTotal")) + ",\"system\":" +
           quoted(std::string(system.sysname) + " " + system.release + " " + system.machine) + ",\"distribution\":" +
           quoted(name.substr(0, name.find('"'))) + ",\"huge_pages\":" +
           quoted(huge.substr(chosen, huge.find(']') - chosen)) + ",\"compiler\":" + quoted(__VERSION__) +
           ",\"load_at_the_end\":" + quoted(load.substr(0, load.find(' ')));
}
