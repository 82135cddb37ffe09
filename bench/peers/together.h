// Several processes that begin at one moment, each with a script of its own.
#pragma once

#include <functional>

#include "system.h"

/// `ns` is the time from the common beginning to the last end. The first fifth of each script, 50,000 steps at most,
/// is performed before the beginning: it brings in pages and caches of the new processes. A script is begun again as long
/// as `least_ns` have not passed since the common beginning.
struct Together {
    double ns = 0;
    size_t done = 0, done_before = 0;
};

/// What a process does; both are made in it.
struct Part {
    Script script;
    std::unique_ptr<System> own;  // the store that it uses instead of the common one, if there is one
};

/// `part_of` is called in each child. `times`, if not NULL, receives those of all processes.
Together perform_together(System &system, unsigned processes, const std::function<Part(unsigned)> &part_of,
                          Latencies *times, double least_ns);

/// What a process has used since some beginning.
struct Usage {
    double ns, faults, processor_ns;
    static Usage now();
    Usage operator-(const Usage &before) const {
        return {ns - before.ns, faults - before.faults, processor_ns - before.processor_ns};
    }
};

/// A child that waits for run(), then runs `work`, whose answer comes back. It knows nothing of what its parent has
/// done meanwhile.
class Waiter {
public:
    explicit Waiter(const std::function<Usage()> &work);
    Usage run();
    ~Waiter();

private:
    int pid_, go_[2], answer_[2];
};
