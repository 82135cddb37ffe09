// The keys and values of all works: made from numbers, so that every answer can be judged without a second map.
//
// A value begins and ends with its stamp: the number of its key, and a version above. Between the two nothing
// changes, so that a new value costs two words for all systems, and a torn one shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

struct Bytes {
    const void *data;
    size_t size;
};

/// Sizes in bytes, and the number of keys that are loaded.
struct Shape {
    size_t key_size, value_size, keys;
    size_t payload() const { return keys * (key_size + value_size); }
};

// Where the numbers of keys begin; those of loaded keys begin at 0. All are below 2^48.
constexpr uint64_t ABSENT_KEYS = uint64_t{1} << 40, COUNTER_KEYS = uint64_t{2} << 40, FRESH_KEYS = uint64_t{3} << 40;
constexpr uint64_t NUMBER_MASK = (uint64_t{1} << 48) - 1, ONE_VERSION = uint64_t{1} << 48;

/// Writes the key of a number: bytes that look random, distinct for distinct numbers.
void make_key(unsigned char *key, size_t size, uint64_t number);

inline uint64_t word_at(const void *data) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    return word;
}

inline uint64_t last_word(const void *data, size_t size) {
    return word_at(static_cast<const unsigned char *>(data) + size - 8);
}

inline void set_stamp(void *data, size_t size, uint64_t stamp) {
    std::memcpy(data, &stamp, sizeof stamp);
    std::memcpy(static_cast<unsigned char *>(data) + size - 8, &stamp, sizeof stamp);
}

/// What a read-modify-write does to a value: both stamps, or a counter's only word, grow by `delta`.
inline void raise(void *data, size_t size, uint64_t delta) { set_stamp(data, size, word_at(data) + delta); }

/// A value to be written, in the caller's memory.
class Value {
public:
    explicit Value(size_t size);
    Bytes with(uint64_t stamp) {
        set_stamp(bytes_.data(), bytes_.size(), stamp);
        return {bytes_.data(), bytes_.size()};
    }

private:
    std::vector<unsigned char> bytes_;
};

/// True if all bytes but the stamps are as Value makes them. Slow: not for what is timed.
bool has_right_body(const void *data, size_t size);

/// xorshift64*: the same sequence for every system.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 88172645463325252u) {}
    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1du;
    }
    uint64_t below(uint64_t n) { return static_cast<uint64_t>(static_cast<unsigned __int128>(next()) * n >> 64); }
    double fraction() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    uint64_t state_;
};
