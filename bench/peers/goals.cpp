#include "goals.h"

#include <cmath>
#include <set>

namespace {

/// Collects the ratios of one shape.
class Judge {
public:
    Judge(const Results &results, const Shape &shape, std::vector<Ratio> &out) : results_(results), shape_(shape), out_(out) {}

    void all() {
        if (shape_.key_size == 16 && shape_.value_size == 64) {
            if (shape_.keys == 1000000) beside_private_maps();
            if (shape_.keys == 10000) goal("find hit / absl, warm", ns("netshm", "find hit"), ns("absl", "find hit"), false, 0.8);
            if (shape_.keys >= 1000000) many_at_once();
            several_processes();
            beside_the_limit();
            value("memory, bytes per entry", cell("netshm", "memory per entry", "bytes"), 1, false,
                  shape_.keys < 1000000 ? 0 : 120);
            value("open and first find, ms", ns("netshm", "open and first find"), 1e-6, false, shape_.keys == 10000000 ? 1 : 0);
        }
        if (shape_.value_size == 1 << 20) {
            goal("1 MiB find, rate / memcpy", ns("limit", "find hit"), ns("netshm", "find hit"), true, 0.7);
            goal("1 MiB replace, rate / memcpy", ns("limit", "replace"), ns("netshm", "replace"), true, 0.7);
        }
        goal("iteration, rate / records read in index order where they lie", ns("limit", "iteration"), ns("netshm", "iteration"),
             true, 0.5);
        goal("iteration, rate / records in index order, each copied first", ns("limit", "iteration, each record copied"),
             ns("netshm", "iteration"), true, 0);
        beside_peers();
    }

private:
    void beside_private_maps() {
        goal("find hit / limit", ns("netshm", "find hit"), ns("limit", "find hit"), false, 1.35);
        goal("find hit / absl", ns("netshm", "find hit"), ns("absl", "find hit"), false, 0.75);
        goal("find miss / absl", ns("netshm", "find miss"), ns("absl", "find miss"), false, 1.3);
        goal("load / absl", ns("netshm", "load"), ns("absl", "load"), false, 0.45);
        goal("replace / absl", ns("netshm", "replace"), ns("absl", "replace"), false, 0.8);
        goal("remove and add / absl", ns("netshm", "remove and add"), ns("absl", "remove and add"), false, 0.8);
        goal("counters by incr / absl", ns("netshm", "counters"), ns("absl", "counters"), false, 1.1);
        goal("counters by groups / absl", ns("netshm", "counters by groups"), ns("absl", "counters"), false, 3);
        for (const char *work : {"find hit", "find miss", "load", "load, pre-sized", "replace", "remove and add", "counters"}) {
            goal(std::string(work) + " / hashbrown", ns("netshm", work), ns("hashbrown", work), false, 0);
        }
    }

    void many_at_once() {
        for (auto [one, many] : {std::pair<const char *, const char *>{"find hit", "find in batches of 100"},
                                 {"replace", "replace in batches of 100"}}) {
            goal(std::string(many) + ", rate / single", ns("netshm", one), ns("netshm", many), true, 3.5);
            goal(std::string(many) + ", rate / single, the limit", ns("limit", one), ns("limit", many), true, 0);
            goal(std::string(many) + " / limit", ns("netshm", many), ns("limit", many), false, 0);
        }
    }

    void several_processes() {
        for (const char *system : {"netshm", "limit"}) {
            bool ours = std::string(system) == "netshm";
            std::string suffix = ours ? "" : ", the limit";
            goal("2 processes / 1, finds" + suffix, ns(system, "YCSB C"), ns(system, "YCSB C", 2), true, ours ? 1.9 : 0);
            const char *half = "half replaces of own keys";
            goal("2 processes / 1, " + std::string(half) + suffix, ns(system, half), ns(system, half, 2), true, ours ? 1.8 : 0);
            goal("2 processes / 1, half replaces, a table each" + suffix, ns(system, half),
                 ns(system, "half replaces, a table each", 2), true, 0);
        }
        const char *hot = "one counter, forked";
        goal("one counter by 2 processes / boost", ns("netshm", hot, 2), ns("boost", hot, 2), false, 1);
        goal("one counter by 2 processes / boost, the limit", ns("limit", hot, 2), ns("boost", hot, 2), false, 0);
        for (const char *work : {"YCSB A", "YCSB C", "half replaces of own keys", "counters, forked", "one counter, forked",
                                 "group of 2, forked"}) {
            goal(std::string("8 processes / 2, ") + work, ns("netshm", work, 2), ns("netshm", work, 8), true, 0.9);
            goal(std::string("8 processes / 2, ") + work + ", the limit", ns("limit", work, 2), ns("limit", work, 8), true, 0);
        }
        value("worst operation of YCSB A, zipfian, by 8 processes, ms", worst("netshm"), 1e-6, false, 0);
        value("worst operation of YCSB A, zipfian, by 8 processes, ms, the limit", worst("limit"), 1e-6, false, 0);
        value("worst loop of the control by 8 processes, ms", worst("control"), 1e-6, false, 0);
    }

    /// What the rows take beside the least that their work can take. No goals: they explain those that are missed.
    void beside_the_limit() {
        for (const char *work : {"load", "replace", "remove and add", "counters", "one counter", "group of 1", "group of 2",
                                 "group of 8"}) {
            goal(std::string(work) + " / limit", ns("netshm", work), ns("limit", work), false, 0);
        }
        for (const char *work : {"YCSB A", "YCSB C", "half replaces of own keys", "counters, forked", "one counter, forked",
                                 "group of 2, forked"}) {
            for (unsigned processes : {1, 2, 8}) {
                std::string several = processes > 1 ? ", " + std::to_string(processes) + " processes" : "";
                goal(work + several + " / limit", ns("netshm", work, processes), ns("limit", work, processes), false, 0);
            }
        }
    }

    /// How many times faster we are, in every row that both have.
    void beside_peers() {
        for (const auto &[ours, row] : results_.rows()) {
            if (ours.system != "netshm" || ours.measure != "ns" || !is_mine(ours)) continue;
            for (const char *peer : {"tdb", "lmdb", "boost", "bdb", "redis", "ocamlnet"}) {
                Cell theirs = ours;
                theirs.system = peer;
                double bound = std::string(peer) != "tdb" ? 1 : ours.processes == 1 ? 3 : ours.processes == 2 ? 2.2 : 1;
                std::string text = ours.work + (ours.distribution == "uniform" ? "" : ", " + ours.distribution);
                if (ours.processes > 1) text += ", " + std::to_string(ours.processes) + " processes";
                goal(text + ": times faster than " + peer, theirs, ours, true, bound);
            }
        }
    }

    bool is_mine(const Cell &c) const {
        return c.key_size == shape_.key_size && c.value_size == shape_.value_size && c.keys == shape_.keys;
    }
    Cell cell(const char *system, const std::string &work, const char *measure) const {
        Cell cell;
        cell.system = system;
        cell.work = work;
        cell.measure = measure;
        cell.key_size = shape_.key_size;
        cell.value_size = shape_.value_size;
        cell.keys = shape_.keys;
        cell.distribution = "uniform";
        return cell;
    }
    Cell ns(const char *system, const std::string &work, unsigned processes = 1) const {
        Cell found = cell(system, work, "ns");
        found.processes = processes;
        return found;
    }
    Cell worst(const char *system) const {
        Cell found = cell(system, "latency of YCSB A", "worst");
        found.processes = 8;
        found.distribution = "zipfian";
        return found;
    }
    void goal(const std::string &text, const Cell &above, const Cell &below, bool at_least, double bound) {
        if (auto ratio = results_.ratio(above, below)) out_.push_back({text, above, *ratio, at_least, bound});
    }
    void value(const std::string &text, const Cell &of, double scale, bool at_least, double bound) {
        auto found = results_.rows().find(of);
        if (found == results_.rows().end()) return;
        std::vector<double> scaled;
        for (double v : found->second.rounds) scaled.push_back(v * scale);
        out_.push_back({text, of, scaled, at_least, bound});
    }

    const Results &results_;
    Shape shape_;
    std::vector<Ratio> &out_;
};

}  // namespace

std::vector<Ratio> ratios_of(const Results &results) {
    std::set<std::tuple<size_t, size_t, size_t>> shapes;
    for (const auto &[cell, row] : results.rows()) shapes.emplace(cell.key_size, cell.value_size, cell.keys);
    std::vector<Ratio> ratios;
    for (auto [key_size, value_size, keys] : shapes) Judge(results, {key_size, value_size, keys}, ratios).all();
    return ratios;
}

void print_ratios(FILE *out, const std::vector<Ratio> &ratios) {
    const Cell *last = nullptr;
    size_t goals = 0, met = 0;
    for (const Ratio &ratio : ratios) {
        const Cell &c = ratio.about;
        if (!last || std::tie(c.key_size, c.value_size, c.keys) != std::tie(last->key_size, last->value_size, last->keys)) {
            fprintf(out, "\n==== ratios within a round, %zu keys of %zu bytes, values of %zu bytes: median (least to most)\n",
                    c.keys, c.key_size, c.value_size);
        }
        last = &c;
        Spread s = spread_of(ratio.rounds);
        fprintf(out, "  %-66s %9.2f  (%.2f to %.2f)", ratio.text.c_str(), s.median, s.least, s.most);
        if (ratio.bound != 0) {
            fprintf(out, "  goal %s %.2f  %s", ratio.at_least ? ">=" : "<=", ratio.bound, ratio.met() ? "met" : "NOT MET");
            goals++;
            met += ratio.met();
        }
        fprintf(out, "\n");
    }
    fprintf(out, "\n%zu of %zu goals are met\n", met, goals);
}

void write_ratios_json(FILE *out, const std::vector<Ratio> &ratios) {
    for (const Ratio &ratio : ratios) {
        Spread s = spread_of(ratio.rounds);
        fprintf(out,
                "{\"kind\":\"ratio\",\"text\":%s,\"work\":%s,\"key_bytes\":%zu,\"value_bytes\":%zu,\"keys\":%zu,\"processes\":%u,"
                "\"median\":%.6g,\"least\":%.6g,\"most\":%.6g,\"goal\":%s,\"bound\":%.6g,\"met\":%s}\n",
                quoted(ratio.text).c_str(), quoted(ratio.about.work).c_str(), ratio.about.key_size, ratio.about.value_size,
                ratio.about.keys, ratio.about.processes, s.median, s.least, s.most,
                ratio.bound == 0 ? "null" : ratio.at_least ? "\">=\"" : "\"<=\"", ratio.bound, ratio.met() ? "true" : "false");
    }
}
