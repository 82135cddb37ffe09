#include "works.h"

#include <unistd.h>

#include <algorithm>

#include "clock.h"
#include "together.h"

namespace {

constexpr size_t BATCH = 100, COUNTERS = 1000, LAG = 64;
constexpr double LEAST_ITERATION_NS = 20e6;

class Works {
public:
    Works(System &system, const Shape &shape, const Plan &plan, const std::vector<uint32_t> &order, const Sink &sink)
        : system_(system), traits_(system.traits()), shape_(shape), plan_(plan), order_(order), sink_(sink) {
        if (traits_.most_operations != SIZE_MAX) {
            traits_.most_operations = std::min(traits_.most_operations, plan.slow_operations);
        }
    }

    void presized_load() {
        if (!traits_.presizes) return;
        system_.create(shape_, true);
        load("load, pre-sized", nullptr);
        system_.destroy();
    }

    void latency_load() {
        if (!plan_.all_rows || !traits_.timed) return;
        Latencies times;
        system_.create(shape_, false);
        size_t done = load(nullptr, &times);
        emit_latencies("latency of load", times, 1, "uniform", done);
        system_.destroy();
    }

    void all_else() {
        if (traits_.only_timed) return only_timed();
        Waiter opener([this] { return use_to_open(); });
        system_.create(shape_, false);
        load("load", nullptr);
        if (traits_.judged) {
            double bytes = static_cast<double>(system_.memory_bytes());
            emit("memory per entry", "bytes", bytes / static_cast<double>(shape_.keys), shape_.keys);
        }
        singles();
        if (plan_.all_rows) {
            counters();
            groups();
            latencies();
            several_processes();
        }
        if (traits_.shared && traits_.judged && traits_.timed) {
            Usage usage = opener.run();
            emit("open and first find", "ns", usage.ns, 1);
            emit("open and first find", "faults", usage.faults, 1);
            emit("open and first find", "processor_ns", usage.processor_ns, 1);
        }
        system_.destroy();
    }

private:
    void only_timed() {
        if (!plan_.all_rows) return;
        system_.create(shape_, false);
        latencies();
        for (unsigned processes : plan_.processes) {
            if (processes > 1) mixed({'A', Distribution::zipfian}, processes, true);
        }
        system_.destroy();
    }

    // ---- One process

    /// Slow systems load a part in the timed way, and the rest as they can.
    size_t load(const char *name, Latencies *times) {
        size_t timed = std::min(shape_.keys, traits_.most_operations);
        Script script = adding(0, timed);
        Outcome outcome = system_.perform(script, 0, timed, times);
        if (outcome.done < timed) throw Failure(std::string(system_.name()) + ": loading takes too long");
        if (name) emit(name, "ns", outcome.ns / static_cast<double>(outcome.done), outcome.done);
        load_rest(timed);
        return timed;
    }

    void load_rest(size_t from) {
        size_t batches = traits_.batches ? (shape_.keys - from) / BATCH : 0, alone = from + batches * BATCH;
        Script wide = new_script(batches, BATCH);
        for (size_t i = from; i < alone; i++) push_wide(wide, Step::put_many, i - from, i);
        system_.perform(wide, 0, wide.size(), nullptr);
        Script script = adding(alone, shape_.keys);
        system_.perform(script, 0, script.size(), nullptr);
    }

    void singles() {
        size_t n = operations();
        perform("find hit", hits(n));
        Script misses = new_script(n);
        for (size_t i = 0; i < n; i++) misses.push(Step::miss, ABSENT_KEYS + i);
        perform("find miss", misses);
        iterate("iteration", false);
        if (traits_.iterates_copies) iterate("iteration, each record copied", true);
        Script replaces = new_script(n);
        replaces.version = 1;
        for (size_t i = 0; i < n; i++) replaces.push(Step::replace, some(i));
        perform("replace", replaces);
        verify(n, replaces.version);
        remove_and_add(n);
        if (traits_.batches && plan_.all_rows) batches(n / BATCH);
    }

    /// Small tables are walked over several times.
    void iterate(const char *name, bool copying) {
        Outcome all;
        do {
            Outcome once = system_.iterate(copying);
            uint64_t expected = shape_.keys * (shape_.keys - 1) / 2;
            if (traits_.judged && (once.done != shape_.keys || once.sum != expected)) {
                throw Failure(std::string(system_.name()) + ": iteration saw wrong bindings, " + std::to_string(once.done));
            }
            all += once;
        } while (all.ns < LEAST_ITERATION_NS);
        emit(name, "ns", all.ns / static_cast<double>(all.done), all.done);
    }

    /// What was replaced must be there to the last byte.
    void verify(size_t n, uint64_t version) {
        Script script = hits(std::min<size_t>(n, 5000));
        script.version = version;
        script.exact = true;
        system_.perform(script, 0, script.size(), nullptr);
    }

    /// A key comes back 64 removals later.
    void remove_and_add(size_t n) {
        size_t lag = std::min(LAG, shape_.keys / 2);
        Script script = new_script(2 * n);
        for (size_t i = 0; i < n + lag; i++) {
            if (i < n) script.push(Step::remove, some(i));
            if (i >= lag) script.push(Step::add, some(i - lag));
        }
        perform("remove and add", script, 2);
    }

    void batches(size_t n) {
        Script finds = new_script(n, BATCH), puts = new_script(n, BATCH);
        puts.version = 2;
        for (size_t i = 0; i < n * BATCH; i++) {
            push_wide(finds, Step::find_many, i, some(i));
            push_wide(puts, Step::put_many, i, some(i));
        }
        perform("find in batches of 100", finds, 1.0 / BATCH);
        perform("replace in batches of 100", puts, 1.0 / BATCH);
        verify(n * BATCH, puts.version);
    }

    void counters() {
        expect_counted("counters", Step::count, COUNTER_KEYS, COUNTERS);
        expect_counted("one counter", Step::count, COUNTER_KEYS + COUNTERS, 1);
        if (traits_.counts_in_groups) expect_counted("counters by groups", Step::group, COUNTER_KEYS, COUNTERS);
    }

    void expect_counted(const char *name, Step step, uint64_t first, size_t counters) {
        uint64_t before = counted(first, counters);
        Outcome outcome = perform(name, counting(step, first, counters, operations(), 1));
        if (traits_.judged && counted(first, counters) - before != outcome.done) {
            throw Failure(std::string(system_.name()) + ": " + name + ": some were not counted");
        }
    }

    void groups() {
        if (!traits_.groups) return;
        for (size_t width : {1, 2, 8}) {
            std::string name = "group of " + std::to_string(width);
            perform(name.c_str(), grouping(width, std::min(operations() / width, traits_.most_groups), 0));
        }
    }

    void latencies() {
        if (!traits_.timed) return;
        size_t n = operations();
        Script replaces = new_script(n);
        replaces.version = 3;
        for (size_t i = 0; i < n; i++) replaces.push(Step::replace, some(i));
        time_single("latency of find hit", hits(n));
        time_single("latency of replace", replaces);
    }

    void time_single(const char *name, const Script &script) {
        Latencies times;
        system_.perform(script, 0, script.size(), &times);
        emit_latencies(name, times, 1, "uniform", script.size());
    }

    // ---- Several processes

    void several_processes() {
        for (unsigned processes : plan_.processes) {
            if (processes > 1 && !traits_.shared) continue;
            for (const Mix &mix : mixes(processes)) mixed(mix, processes, false);
            if (traits_.timed && processes > 1) mixed({'A', Distribution::zipfian}, processes, true);
            counters_together("counters, forked", COUNTER_KEYS, COUNTERS, processes);
            counters_together("one counter, forked", COUNTER_KEYS + COUNTERS, 1, processes);
            if (traits_.groups) groups_together(processes);
            if (processes == 2 && shape_.keys <= 1000000) a_table_each(processes);
        }
    }

    std::vector<Mix> mixes(unsigned processes) const {
        if (!plan_.all_mixes || processes > 2) {
            return {{'A', Distribution::uniform}, {'C', Distribution::uniform}, {'O', Distribution::uniform}};
        }
        std::vector<Mix> all;
        for (char letter : {'A', 'B', 'C', 'F'}) {
            if (letter == 'F' && !traits_.groups) continue;
            all.push_back({letter, Distribution::uniform});
            all.push_back({letter, Distribution::zipfian});
        }
        all.push_back({'D', Distribution::zipfian});
        all.push_back({'O', Distribution::uniform});
        return all;
    }

    void mixed(const Mix &mix, unsigned processes, bool timed) {
        size_t n = operations_together(processes, mix.letter != 'C');
        uint64_t fresh = FRESH_KEYS + (fresh_used_++ << 36);
        Latencies times;
        auto part_of = [&](unsigned p) {
            return Part{mixed_script(mix, shape_, n, p, processes, fresh + (uint64_t{p} << 28)), nullptr};
        };
        // What D adds can be added only once.
        double least_ns = mix.letter == 'D' ? 0 : least_ns_together(processes);
        Together all = perform_together(system_, processes, part_of, timed ? &times : nullptr, least_ns);
        std::string name = mix.letter == 'O' ? "half replaces of own keys" : std::string("YCSB ") + mix.letter;
        bool uniform = mix.distribution == Distribution::uniform;
        const char *distribution = uniform ? "uniform" : mix.letter == 'D' ? "latest" : "zipfian";
        if (timed) emit_latencies(("latency of " + name).c_str(), times, processes, distribution, all.done);
        else emit_together(name, all, processes, distribution);
    }

    void counters_together(const char *name, uint64_t first, size_t counters, unsigned processes) {
        size_t n = operations_together(processes, true);
        uint64_t before = counted(first, counters);
        auto part_of = [&](unsigned p) { return Part{counting(Step::count, first, counters, n, p + 1), nullptr}; };
        Together all = perform_together(system_, processes, part_of, nullptr, least_ns_together(processes));
        if (traits_.judged && traits_.shared && counted(first, counters) - before != all.done + all.done_before) {
            throw Failure(std::string(system_.name()) + ": " + name + ": some were not counted");
        }
        emit_together(name, all, processes, "uniform");
    }

    void groups_together(unsigned processes) {
        size_t n = std::min(operations_together(processes, true), traits_.most_groups);
        auto part_of = [&](unsigned p) { return Part{grouping(2, n, p * (shape_.keys / processes)), nullptr}; };
        Together all = perform_together(system_, processes, part_of, nullptr, least_ns_together(processes));
        emit_together("group of 2, forked", all, processes, "uniform");
    }

    /// The work of "half replaces of own keys" without a line that two processes write.
    void a_table_each(unsigned processes) {
        if (!system_.another()) return;
        size_t n = operations_together(processes, true);
        auto part_of = [&](unsigned p) {
            Part part = {mixed_script({'O', Distribution::uniform}, shape_, n, p, processes, 0), system_.another()};
            part.own->create(shape_, false);
            Script script = adding(0, shape_.keys);
            part.own->perform(script, 0, script.size(), nullptr);
            return part;
        };
        Together all = perform_together(system_, processes, part_of, nullptr, least_ns_together(processes));
        emit_together("half replaces, a table each", all, processes, "uniform");
    }

    Usage use_to_open() {
        Script script = hits(1);
        Usage before = Usage::now();
        system_.open_existing(shape_);
        system_.perform(script, 0, 1, nullptr);
        Usage usage = Usage::now() - before;
        system_.before_exit();
        return usage;
    }

    // ---- Scripts

    Script new_script(size_t n, size_t width = 1) const {
        Script script(shape_.key_size, shape_.value_size, width);
        script.reserve(n);
        return script;
    }
    /// Appends the i-th key of a script whose steps have several.
    static void push_wide(Script &script, Step step, size_t i, uint64_t number) {
        if (i % script.width == 0) script.steps.push_back(step);
        script.push_key(number);
    }
    /// The i-th key in random order; each comes once before one comes twice.
    uint64_t some(size_t i) const { return order_[i % shape_.keys]; }

    Script adding(uint64_t from, uint64_t to) const {
        Script script = new_script(to - from);
        for (uint64_t number = from; number < to; number++) script.push(Step::add, number);
        return script;
    }
    Script hits(size_t n) const {
        Script script = new_script(n);
        for (size_t i = 0; i < n; i++) script.push(Step::find, some(i));
        return script;
    }
    Script counting(Step step, uint64_t first, size_t counters, size_t n, uint64_t seed) const {
        Script script(shape_.key_size, 8);
        script.reserve(n);
        Random random(seed);
        for (size_t i = 0; i < n; i++) script.push(step, first + random.below(counters));
        return script;
    }
    Script grouping(size_t width, size_t n, size_t from) const {
        Script script = new_script(n, width);
        script.delta = ONE_VERSION;
        for (size_t i = 0; i < n * width; i++) push_wide(script, Step::group, i, some(from + i));
        return script;
    }
    /// The sum of the counters. It makes those that are not there yet.
    uint64_t counted(uint64_t first, size_t counters) {
        Script script(shape_.key_size, 8);
        script.delta = 0;
        for (size_t i = 0; i < counters; i++) script.push(Step::count, first + i);
        return system_.perform(script, 0, script.size(), nullptr).sum;
    }

    // ---- How many, and where the figures go

    size_t operations() const {
        return std::min({plan_.operations, traits_.most_operations, most_by_bytes()});
    }
    size_t most_by_bytes() const {
        return std::max<size_t>(std::min(plan_.bytes_per_row, traits_.most_bytes) / shape_.value_size, 10);
    }
    /// Of each process.
    size_t operations_together(unsigned processes, bool writes) const {
        size_t most = traits_.most_operations;
        if (processes > 1 && writes) most = std::min(most, traits_.most_writes_together);
        if (most != SIZE_MAX) most /= processes;
        return std::min({plan_.mixed_operations, most, most_by_bytes()});
    }
    bool is_slow() const { return traits_.most_operations != SIZE_MAX; }
    /// So much longer where processes wait for a processor that each has it for as long.
    double least_ns_together(unsigned processes) const {
        if (is_slow()) return 0;
        auto processors = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
        return plan_.least_ns_together * std::max(1.0, processes / processors);
    }

    /// `per`: steps that make one operation.
    Outcome perform(const char *name, const Script &script, double per = 1) {
        Outcome outcome;
        do outcome += system_.perform(script, 0, script.size(), nullptr);
        while (!is_slow() && outcome.ns < plan_.least_ns);
        double operations = static_cast<double>(outcome.done) / per;
        emit(name, "ns", outcome.ns / operations, static_cast<size_t>(operations));
        return outcome;
    }
    void emit(const char *work, const char *measure, double value, size_t operations) const {
        Cell cell;
        cell.work = work;
        cell.measure = measure;
        cell.distribution = "uniform";
        sink_(cell, value, operations);
    }
    void emit_together(const std::string &work, const Together &all, unsigned processes, const char *distribution) const {
        Cell cell;
        cell.work = work;
        cell.measure = "ns";
        cell.processes = processes;
        cell.distribution = distribution;
        if (all.done > 0) sink_(cell, all.ns / static_cast<double>(all.done), all.done);
    }
    void emit_latencies(const char *work, const Latencies &times, unsigned processes, const char *distribution, size_t n) const {
        static const std::pair<const char *, double> parts[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999},
                                                                {"p99.99", .9999}, {"worst", 1}};
        Cell cell;
        cell.work = work;
        cell.processes = processes;
        cell.distribution = distribution;
        for (auto [measure, part] : parts) {
            cell.measure = measure;
            sink_(cell, times.quantile_ns(part), n);
        }
    }

    System &system_;
    Traits traits_;
    Shape shape_;
    const Plan &plan_;
    const std::vector<uint32_t> &order_;
    const Sink &sink_;
    uint64_t fresh_used_ = 0;
};

}  // namespace

void do_job(Job job, System &system, const Shape &shape, const Plan &plan, const std::vector<uint32_t> &order, const Sink &sink) {
    Works works(system, shape, plan, order, sink);
    switch (job) {
    case Job::presized_load: return works.presized_load();
    case Job::latency_load: return works.latency_load();
    case Job::all_else: return works.all_else();
    case Job::count: return;
    }
}
