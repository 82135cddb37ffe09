// A script: operations in the order in which one process performs them. Keys lie one after the other, so that reading
// a key from the script never misses the cache where the table is what is measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "content.h"

enum class Step : unsigned char {
    find,       // must be there, with its own value
    miss,       // must be absent
    add,        // a new binding of a key that has none
    replace,    // the value of a key that has one
    remove,     // must be there
    count,      // counter += delta; an absent one begins at 0
    update,     // read-modify-write of one value, atomically
    group,      // read-modify-write of `width` values, atomically together
    find_many,  // `width` finds, by one call where the system has one
    put_many,   // `width` replaces, by one call where the system has one
};

struct Script {
    Script(size_t key_size, size_t value_size, size_t width = 1) : key_size(key_size), value_size(value_size), width(width) {}

    size_t key_size, value_size, width;
    /// What is written gets this version. `exact`: what is found must have it.
    uint64_t version = 0;
    bool exact = false;
    /// What counters, updates and groups add.
    uint64_t delta = 1;

    std::vector<Step> steps;
    std::vector<uint64_t> numbers;  // `width` for each step, and as many keys
    std::vector<unsigned char> keys;

    void reserve(size_t n);
    /// Appends one key to the last step, which needs `width` of them.
    void push_key(uint64_t number);
    void push(Step step, uint64_t number) {
        steps.push_back(step);
        push_key(number);
    }
    size_t size() const { return steps.size(); }
    Bytes key(size_t i) const { return {keys.data() + i * key_size, key_size}; }
    uint64_t stamp(size_t i) const { return numbers[i] | version << 48; }
};

/// Numbers of keys in an order in which each comes once.
std::vector<uint32_t> shuffled(size_t n, uint64_t seed);

/// YCSB's scrambled zipfian numbers below n, theta 0.99: a few keys are asked for most of the time.
class Zipfian {
public:
    explicit Zipfian(size_t n);
    /// 0 is the most frequent.
    uint64_t rank(Random &random) const;
    uint64_t number(Random &random) const;

private:
    double n_, zeta_, eta_, second_;
};

enum class Distribution { uniform, zipfian };

/// YCSB's workloads: A half updates, B 5% updates, C finds only, D finds of the latest and 5% inserts, F half
/// read-modify-writes; and O: half replaces of keys that no other process writes, half finds of any.
struct Mix {
    char letter;
    Distribution distribution;
};
Script mixed_script(Mix mix, const Shape &shape, size_t operations, unsigned process, unsigned processes,
                    uint64_t fresh_numbers);
