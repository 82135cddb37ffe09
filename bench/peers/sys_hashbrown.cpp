// hashbrown with netshm's hash function in private memory, without locks: see bench/map.
#include <malloc.h>

#include "system.h"

extern "C" {
#include "../benchmap.h"
}

namespace {

size_t heap_in_use() {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

void raise_value(void *value, size_t size, void *arg) { raise(value, size, *static_cast<uint64_t *>(arg)); }

class Hashbrown : public DirectSystem {
public:
    const char *name() const override { return "hashbrown"; }
    Traits traits() const override {
        Traits traits;
        traits.shared = false;
        traits.presizes = true;
        traits.setup = "HashMap<Box<[u8]>, Box<[u8]>> with XXH3, private, no locks";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        before_ = heap_in_use();
        map_ = benchmap_new(presized ? shape.keys : 0);
    }
    void destroy() override { benchmap_free(map_); }

    size_t find(Bytes key, void *into, size_t capacity) override {
        size_t length;
        return benchmap_find(map_, key.data, key.size, into, capacity, &length) == 0 ? length : NONE;
    }
    void add(Bytes key, Bytes value) override { benchmap_add(map_, key.data, key.size, value.data, value.size); }
    void replace(Bytes key, Bytes value) override { benchmap_put(map_, key.data, key.size, value.data, value.size); }
    bool remove(Bytes key) override { return benchmap_remove(map_, key.data, key.size) != 0; }
    int64_t count(Bytes key, int64_t delta) override {
        int64_t now = benchmap_increment(map_, key.data, key.size, delta);
        if (now != INT64_MIN) return now;
        benchmap_add(map_, key.data, key.size, &delta, 8);
        return delta;
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        for (size_t i = 0; i < n; i++) benchmap_change(map_, keys[i].data, keys[i].size, raise_value, &delta);
    }
    void visit(Visitor visitor, void *arg) override {
        struct Both {
            Visitor visitor;
            void *arg;
        } both = {visitor, arg};
        auto see = [](const void *key, size_t key_len, const void *value, size_t len, void *p) {
            auto &both = *static_cast<Both *>(p);
            both.visitor({key, key_len}, {value, len}, both.arg);
        };
        benchmap_iter(map_, see, &both);
    }
    size_t memory_bytes() override { return heap_in_use() - before_; }

private:
    benchmap *map_ = nullptr;
    size_t before_ = 0;
};

}  // namespace

std::unique_ptr<System> make_hashbrown() { return std::make_unique<Hashbrown>(); }
