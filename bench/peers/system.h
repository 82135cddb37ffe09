// The one interface through which all works reach a system under test.
//
// System is what the works see: a store that performs scripts. DirectSystem is a system with an API for single
// operations, called from here by virtual functions: the same small cost for all of them. Everything throws Failure:
// a wrong answer, too, ends the run.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "latencies.h"
#include "script.h"

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What was done, how long it took, and the sum of what counters answered.
struct Outcome {
    double ns = 0;
    size_t done = 0;
    uint64_t sum = 0;
    void operator+=(const Outcome &more) {
        ns += more.ns;
        done += more.done;
        sum += more.sum;
    }
};

struct Traits {
    /// Several processes can use it at once, each by its own handle.
    bool shared = true;
    /// It can be told how many keys will come, and works if it has not been told.
    bool presizes = false;
    /// Answers are judged. Not those of the limit and of the control loop.
    bool judged = true;
    /// What it can hold, perform in one row, and perform in one row in which several
    /// processes write, all together.
    size_t most_keys = SIZE_MAX, most_operations = SIZE_MAX, most_writes_together = SIZE_MAX;
    size_t most_groups = SIZE_MAX;
    /// Bytes of values that it can hold, and read or write in one row.
    size_t most_bytes = SIZE_MAX;
    bool groups = true, batches = true;
    /// Single operations can be timed. `only_timed`: it is there for the rows that do so, and for no others.
    bool timed = true, only_timed = false;
    /// Bindings are iterated a second time, each copied first, in a row of its own.
    bool iterates_copies = false;
    /// Counters are raised by a group as well, in a row of its own.
    bool counts_in_groups = false;
    /// What the report says about how it was set up.
    const char *setup = "";
};

class System {
public:
    virtual ~System() = default;
    virtual const char *name() const = 0;
    virtual Traits traits() const = 0;

    /// Makes an empty store, with room for all keys of the shape if that is asked for.
    virtual void create(const Shape &shape, bool presized) = 0;
    /// Opens the store in a process that has never had it open.
    virtual void open_existing(const Shape &) {}
    /// A second system of the kind, for the row in which each process has a store of its own; NULL: it is left out.
    virtual std::unique_ptr<System> another() const { return nullptr; }
    /// Makes the handle usable that a forked child has inherited.
    virtual void after_fork() {}
    /// Closes the handle of a child, before it ends.
    virtual void before_exit() {}
    /// Closes the store and deletes it.
    virtual void destroy() = 0;

    /// Performs the steps from `from` up to `to`; the times go to `times` if it is not NULL. Who goes on within a
    /// script has begun it at step 0.
    virtual Outcome perform(const Script &script, size_t from, size_t to, Latencies *times) = 0;
    /// Sees all bindings; `sum` is that of their numbers. `copying`: keys and values are copied to a buffer first, as
    /// whoever hands out valid ones must; asked only of those whose bindings are seen where they lie.
    virtual Outcome iterate(bool copying = false) = 0;
    /// Memory that the store takes, wherever it lies; private memory as far as it grew since `create`.
    virtual size_t memory_bytes() = 0;
};

class DirectSystem : public System {
public:
    static constexpr size_t NONE = SIZE_MAX;
    /// Hears of a binding; throws nothing, since it is called through other languages.
    using Visitor = void (*)(Bytes key, Bytes value, void *arg);

    Outcome perform(const Script &script, size_t from, size_t to, Latencies *times) final;
    Outcome iterate(bool copying) final;

    /// Copies the value of a key into the caller's buffer and gives its length, or NONE.
    virtual size_t find(Bytes key, void *into, size_t capacity) = 0;
    /// Looks for a key that is absent.
    virtual bool lacks(Bytes key, void *into, size_t capacity) { return find(key, into, capacity) == NONE; }
    virtual void add(Bytes key, Bytes value) = 0;
    virtual void replace(Bytes key, Bytes value) = 0;
    virtual bool remove(Bytes key) = 0;
    /// Adds to a counter, which begins at 0, and gives its new value.
    virtual int64_t count(Bytes key, int64_t delta) = 0;
    /// Reads n values, raises them, and writes them: nobody sees or changes anything in between.
    virtual void raise_together(const Bytes *keys, size_t n, uint64_t delta) = 0;
    /// The same for one value, by what the system has for that.
    virtual void update(Bytes key, uint64_t delta) { raise_together(&key, 1, delta); }
    /// Values go to `into`, `stride` bytes apart.
    virtual void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths);
    virtual void put_many(const Bytes *keys, const Bytes *values, size_t n);
    virtual void visit(Visitor visitor, void *arg) = 0;
};

/// Bytes that a file, or all files of a directory, take in the file system.
size_t disk_usage(const std::string &path);

/// A name that no other run has, in /dev/shm.
std::string scratch_path(const std::string &what);
void remove_tree(const std::string &path);
/// Removes what runs have left whose processes are gone.
void remove_leftovers();

using Maker = std::unique_ptr<System> (*)();
/// All systems that were built in, the limit first, netshm second.
std::vector<Maker> all_systems();
