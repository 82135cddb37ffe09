#include "content.h"

#include <algorithm>

/// splitmix64: a bijection.
static uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void make_key(unsigned char *key, size_t size, uint64_t number) {
    uint64_t word = number;
    for (size_t at = 0; at < size; at += 8) {
        word = mixed(word);
        std::memcpy(key + at, &word, std::min<size_t>(8, size - at));
    }
}

static unsigned char body_at(size_t i) { return static_cast<unsigned char>(i * 7 + (i >> 8)); }

Value::Value(size_t size) : bytes_(size) {
    for (size_t i = 0; i < size; i++) bytes_[i] = body_at(i);
}

bool has_right_body(const void *data, size_t size) {
    auto bytes = static_cast<const unsigned char *>(data);
    for (size_t i = 8; i + 8 < size; i++) {
        if (bytes[i] != body_at(i)) return false;
    }
    return true;
}
