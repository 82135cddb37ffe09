// The limit: what any hash table outside of the cache has to do, and nothing else. See bench/map.
//
// find: hash, a line of an index, the record, copy: two dependent cache misses. miss: one. replace: the record's place,
// a compare-and-swap, write, another. iterate: all records in the order of the index.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system.h"

extern "C" {
#include "../benchmap.h"
}

namespace {

constexpr size_t HEAD = 32;  // before a record's value, as benchlimit_find has it

unsigned char *shared_memory(size_t bytes) {
    int fd = memfd_create("limit", 0);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) throw Failure("limit: memfd_create");
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) throw Failure("limit: mmap");
    return static_cast<unsigned char *>(memory);
}

class Limit : public DirectSystem {
public:
    const char *name() const override { return "limit"; }
    Traits traits() const override {
        Traits traits;
        traits.judged = false;
        traits.groups = traits.batches = false;
        traits.setup = "shared memory; find: two dependent random reads and the copy; replace: read, CAS, write, CAS";
        return traits;
    }

    void create(const Shape &shape, bool) override {
        shape_ = shape;
        record_size_ = (HEAD + shape.value_size + 15) / 16 * 16;
        size_t lines = 1;
        while (lines < shape.keys) lines *= 2;
        mask_ = lines - 1;
        lines_size_ = lines * LINE;
        lines_ = shared_memory(lines_size_);
        records_ = shared_memory(shape.keys * record_size_);
        std::vector<uint32_t> order = shuffled(shape.keys, 7);
        for (size_t i = 0; i < lines; i++) *record_of(i) = order[i % shape.keys];
    }
    void destroy() override {
        munmap(lines_, lines_size_);
        munmap(records_, shape_.keys * record_size_);
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        benchlimit_find(lines_, mask_, records_, record_size_, key.data, key.size, into, capacity);
        return capacity;
    }
    bool lacks(Bytes key, void *, size_t) override {
        uint64_t seen = benchlimit_miss(lines_, mask_, key.data, key.size);
        asm volatile("" : : "r"(seen));
        return true;
    }
    bool remove(Bytes key) override {
        count(key, 0);
        return true;
    }
    void add(Bytes key, Bytes value) override { replace(key, value); }
    void replace(Bytes key, Bytes value) override {
        benchlimit_write(lines_, mask_, records_, record_size_, key.data, key.size, value.data, value.size);
    }
    int64_t count(Bytes key, int64_t delta) override {
        benchlimit_write(lines_, mask_, records_, record_size_, key.data, key.size, &delta, sizeof delta);
        return 0;
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        for (size_t i = 0; i < n; i++) count(keys[i], static_cast<int64_t>(delta));
    }
    void visit(Visitor visitor, void *arg) override {
        for (size_t i = 0; i < shape_.keys; i++) {
            const unsigned char *record = records_ + *record_of(i) * record_size_;
            visitor({record, shape_.key_size}, {record + HEAD, shape_.value_size}, arg);
        }
    }
    size_t memory_bytes() override { return lines_size_ + shape_.keys * record_size_; }

private:
    static constexpr size_t LINE = 64;
    uint64_t *record_of(size_t line) { return reinterpret_cast<uint64_t *>(lines_ + line * LINE) + 1; }

    Shape shape_ = {};
    size_t record_size_ = 0, lines_size_ = 0;
    uint64_t mask_ = 0;
    unsigned char *lines_ = nullptr, *records_ = nullptr;
};

}  // namespace

std::unique_ptr<System> make_limit() { return std::make_unique<Limit>(); }
