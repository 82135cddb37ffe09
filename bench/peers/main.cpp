// The benchmark of netshm beside its peers: the same work on all of them in one run.
//
// usage: peers [--full] [--rounds N] [--only SHAPE] [--systems A,B,...] [--json FILE]
//
// SHAPE is KEY/VALUE/KEYS, for example 16/64/1000000. Rounds are interleaved: in each, every system does all its
// work, in processes of its own, and ratios are taken within a round. A wrong answer ends the run.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "clock.h"
#include "goals.h"
#include "works.h"

namespace {

struct Options {
    bool full = false;
    size_t rounds = 5;
    std::string only, systems, json;
};

struct Cells {
    Shape shape;
    bool all_rows, all_mixes;
};

std::vector<Cells> cells_of(bool full) {
    if (!full) {
        return {{{16, 64, 10000}, true, false}, {{16, 64, 1000000}, true, true},
                {{8, 8, 10000}, false, false},  {{16, 1024, 10000}, false, false},
                {{32, 65536, 1000}, false, false}, {{8, 1 << 20, 64}, false, false}};
    }
    std::vector<Cells> all;
    for (auto [key_size, value_size] : {std::pair<size_t, size_t>{8, 8}, {16, 64}, {16, 1024}, {32, 65536}}) {
        for (size_t keys : {10000, 1000000, 10000000}) {
            Shape shape = {key_size, value_size, keys};
            if (shape.payload() <= size_t{2} << 30) all.push_back({shape, value_size == 64 || keys == 1000000, value_size == 64});
        }
    }
    all.push_back({{8, 1 << 20, 1000}, false, false});  // 10^4 would be more than 2 GiB
    return all;
}

size_t slow_operations(bool full) { return full ? 20000 : 3000; }

Plan plan_of(bool full, const Cells &cells) {
    Plan plan;
    plan.operations = full ? 1000000 : 150000;
    plan.mixed_operations = full ? 500000 : 100000;
    plan.slow_operations = slow_operations(full);
    plan.bytes_per_row = full ? size_t{1} << 30 : size_t{256} << 20;
    // Where a script has every key, and the table is in the cache anyway, the same keys again change nothing.
    bool repeats = cells.shape.keys <= 10000 && cells.shape.payload() <= size_t{16} << 20;
    plan.least_ns = repeats ? 20e6 : 0;
    plan.least_ns_together = repeats ? 100e6 : 0;
    plan.all_rows = cells.all_rows;
    plan.all_mixes = cells.all_mixes;
    plan.processes = {1, 2, 8};
    return plan;
}

std::string text_of(const Shape &shape) {
    return std::to_string(shape.key_size) + "/" + std::to_string(shape.value_size) + "/" + std::to_string(shape.keys);
}

/// Does one job in a process of its own, and reads the figures from a pipe.
class Runner {
public:
    Runner(Results &results, const Shape &shape, const Plan &plan) : results_(results), shape_(shape), plan_(plan) {
        order_ = shuffled(shape.keys, 1);
        Zipfian warm_up(shape.keys);
    }

    void run(Maker maker, Job job, size_t round) {
        std::unique_ptr<System> system = maker();
        Shape held = shape_;
        held.keys = std::min({held.keys, system->traits().most_keys, system->traits().most_bytes / held.value_size});
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) throw Failure("bench: pipe");
        fflush(nullptr);
        pid_t pid = fork();
        if (pid < 0) throw Failure("bench: fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ends[0]);
            work(maker, job, held, ends[1]);
        }
        close(ends[1]);
        collect(ends[0], system->name(), held, round);
        int status;
        if (waitpid(pid, &status, 0) < 0 || status != 0) throw Failure(std::string(system->name()) + " failed");
    }

private:
    [[noreturn]] void work(Maker maker, Job job, const Shape &held, int out) {
        FILE *lines = fdopen(out, "w");
        auto sink = [&](const Cell &c, double value, size_t operations) {
            fprintf(lines, "%s\t%u\t%s\t%s\t%.9g\t%zu\n", c.work.c_str(), c.processes, c.distribution.c_str(),
                    c.measure.c_str(), value, operations);
            fflush(lines);
        };
        try {
            std::unique_ptr<System> system = maker();
            std::vector<uint32_t> order = held.keys == shape_.keys ? std::move(order_) : shuffled(held.keys, 1);
            do_job(job, *system, held, plan_, order, sink);
            fflush(nullptr);
            _exit(0);
        } catch (const std::exception &e) {
            fprintf(stderr, "bench: FAILED: %s\n", e.what());
            _exit(1);
        }
    }

    void collect(int in, const char *system, const Shape &held, size_t round) {
        FILE *lines = fdopen(in, "r");
        char line[512], work[128], distribution[32], measure[32];
        while (fgets(line, sizeof line, lines)) {
            Cell cell;
            double value;
            size_t operations;
            if (sscanf(line, "%127[^\t]\t%u\t%31[^\t]\t%31[^\t]\t%lf\t%zu", work, &cell.processes, distribution, measure, &value,
                       &operations) != 6) {
                throw Failure("bench: a line was not understood");
            }
            cell.system = system;
            cell.work = work;
            cell.key_size = shape_.key_size;
            cell.value_size = shape_.value_size;
            cell.keys = shape_.keys;
            cell.distribution = distribution;
            cell.measure = measure;
            results_.put(cell, round, value, operations, held.keys);
        }
        fclose(lines);
    }

    Results &results_;
    Shape shape_;
    const Plan &plan_;
    std::vector<uint32_t> order_;
};

std::vector<Maker> wanted_systems(const std::string &names) {
    std::vector<Maker> makers;
    for (Maker maker : all_systems()) {
        std::string name = maker()->name();
        if (names.empty() || ("," + names + ",").find("," + name + ",") != std::string::npos) makers.push_back(maker);
    }
    return makers;
}

void run_cells(const Cells &cells, const Options &options, const std::vector<Maker> &makers, Results &results) {
    Plan plan = plan_of(options.full, cells);
    Runner runner(results, cells.shape, plan);
    for (size_t round = 0; round < options.rounds; round++) {
        fprintf(stderr, "bench: %s: round %zu of %zu, seconds:", text_of(cells.shape).c_str(), round + 1, options.rounds);
        for (size_t i = 0; i < makers.size(); i++) {
            Maker maker = makers[(i + round) % makers.size()];
            double start = now_ns();
            for (int job = 0; job < static_cast<int>(Job::count); job++) runner.run(maker, static_cast<Job>(job), round);
            fprintf(stderr, " %s %.1f", maker()->name(), (now_ns() - start) / 1e9);
        }
        fprintf(stderr, "\n");
    }
}

/// With the bounds of slow systems.
std::string setup_of(const Traits &traits, bool full) {
    std::string text = traits.setup;
    if (traits.most_operations == SIZE_MAX) return text;
    size_t most = std::min(traits.most_operations, slow_operations(full));
    text += "; at most " + std::to_string(most) + " operations per row";
    size_t together = std::min(most, traits.most_writes_together);
    if (together < most) text += ", " + std::to_string(together) + " where several processes write";
    return text;
}

void write_json(const std::string &name, const Options &options, const std::vector<Maker> &makers, const Results &results,
                const std::vector<Ratio> &ratios) {
    FILE *out = fopen(name.c_str(), "w");
    if (!out) throw Failure("bench: cannot write " + name);
    char date[32];
    time_t now = time(nullptr);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    fprintf(out, "{\"kind\":\"run\",\"date\":\"%s\",\"full\":%s,\"rounds\":%zu,%s}\n", date, options.full ? "true" : "false",
            options.rounds, machine_json().c_str());
    for (Maker maker : makers) {
        auto system = maker();
        fprintf(out, "{\"kind\":\"system\",\"system\":%s,\"setup\":%s}\n", quoted(system->name()).c_str(),
                quoted(setup_of(system->traits(), options.full)).c_str());
    }
    results.write_json(out);
    write_ratios_json(out, ratios);
    if (fclose(out) != 0) throw Failure("bench: cannot write " + name);
}

int usage() {
    fprintf(stderr, "usage: peers [--full] [--rounds N] [--only KEY/VALUE/KEYS] [--systems A,B,...] [--json FILE]\n");
    return 2;
}

bool parse(int argc, char **argv, Options &options) {
    for (int i = 1; i < argc; i++) {
        std::string word = argv[i];
        if (word == "--full") {
            options.full = true;
            continue;
        }
        if (++i == argc) return false;
        if (word == "--rounds") options.rounds = std::strtoul(argv[i], nullptr, 10);
        else if (word == "--only") options.only = argv[i];
        else if (word == "--systems") options.systems = argv[i];
        else if (word == "--json") options.json = argv[i];
        else return false;
    }
    return options.rounds >= 1 && options.rounds <= 100;
}

void run(const Options &options) {
    std::vector<Maker> makers = wanted_systems(options.systems);
    Results results;
    for (const Cells &cells : cells_of(options.full)) {
        if (!options.only.empty() && text_of(cells.shape) != options.only) continue;
        run_cells(cells, options, makers, results);
        // After each shape: a run that is ended early leaves what it has.
        if (!options.json.empty()) write_json(options.json, options, makers, results, ratios_of(results));
    }
    if (results.rows().empty()) throw Failure("there is no such shape in this form of the run");
    results.print(stdout);
    print_ratios(stdout, ratios_of(results));
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    if (!parse(argc, argv, options)) return usage();
    try {
        remove_leftovers();
        ns_per_tick();
        run(options);
    } catch (const std::exception &e) {
        fprintf(stderr, "\nbench: FAILED: %s\n", e.what());
        remove_leftovers();
        return 1;
    }
}
