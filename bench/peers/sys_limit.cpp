// The limit: what any hash table outside of the cache has to do, and nothing else. See bench/map.
//
// find: hash, a line of an index, the record, copy: two dependent cache misses. miss: one. replace: the record's place,
// a compare-and-swap, write, another. count, update: the same, with the old value read in between. group: all locks, the
// new values to a log, to the records, all locks back. batches: all lines and records of 16 keys asked for first.
// iterate: all records in the order of the index.
// Locks are real ones, so that what processes cost each other is in the figures.
//
// add: key and value copied to shared memory that nobody has touched before, one after the other, and a store into an
// index that is as fresh; together as many bytes as a table of netshm's takes. All other works see an index and records
// that were there from the beginning.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system.h"

extern "C" {
#include "../benchmap.h"
}

namespace {

constexpr size_t HEAD = 32;  // before a record's value, as benchlimit_find has it

/// Shared memory; `present`: its pages are there, and not made when they are touched.
class Memory {
public:
    Memory() = default;
    Memory(size_t bytes, bool present) : size_(bytes) {
        int fd = memfd_create("limit", 0);
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) throw Failure("limit: memfd_create");
        void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (present ? MAP_POPULATE : 0), fd, 0);
        close(fd);
        if (memory == MAP_FAILED) throw Failure("limit: mmap");
        data_ = static_cast<unsigned char *>(memory);
    }
    Memory(Memory &&other) noexcept { swap(other); }
    Memory &operator=(Memory &&other) noexcept {
        swap(other);
        return *this;
    }
    ~Memory() {
        if (data_) munmap(data_, size_);
    }
    unsigned char *at(size_t place) const { return data_ + place; }
    size_t size() const { return size_; }

private:
    void swap(Memory &other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }
    unsigned char *data_ = nullptr;
    size_t size_ = 0;
};

class Limit : public DirectSystem {
public:
    const char *name() const override { return "limit"; }
    Traits traits() const override {
        Traits traits;
        traits.judged = false;
        traits.iterates_copies = true;
        traits.setup = "shared memory; find: two dependent random reads and the copy; replace, counter, update: read, CAS, write, "
                       "CAS; group: CAS of all, the new values to a log and to the records, stores; load: copies to fresh memory; "
                       "iteration: reads in index order, or copies to a buffer first";
        return traits;
    }

    void create(const Shape &shape, bool) override {
        shape_ = shape;
        record_size_ = (HEAD + shape.value_size + 15) / 16 * 16;
        size_t lines = 1;
        while (lines < shape.keys) lines *= 2;
        mask_ = lines - 1;
        lines_ = Memory(lines * LINE, true);
        records_ = Memory(shape.keys * record_size_, true);
        std::vector<uint32_t> order = shuffled(shape.keys, 7);
        for (size_t i = 0; i < lines; i++) *record_of(i) = order[i % shape.keys];
        fresh_index_ = Memory((shape.keys * FRESH_INDEX_BYTES / LINE + 1) * LINE, false);
        make_room();
    }
    std::unique_ptr<System> another() const override { return std::make_unique<Limit>(); }
    /// A child has no pages of the parent's shared memory in its page table. Those of the other works come by finds.
    void after_fork() override {
        make_room();
        for (size_t at = 0; at < fresh_index_.size(); at += 4096) {
            asm volatile("" : : "r"(*fresh_index_.at(at)));
        }
    }
    void destroy() override {
        for (Memory *memory : {&lines_, &records_, &fresh_, &fresh_index_, &log_}) *memory = Memory();
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        benchlimit_find(lines_.at(0), mask_, records_.at(0), record_size_, key.data, key.size, into, capacity);
        return capacity;
    }
    bool lacks(Bytes key, void *, size_t) override {
        uint64_t seen = benchlimit_miss(lines_.at(0), mask_, key.data, key.size);
        asm volatile("" : : "r"(seen));
        return true;
    }
    bool remove(Bytes key) override {
        count(key, 0);
        return true;
    }
    /// What comes when the fresh memory is full has been there before.
    void add(Bytes key, Bytes value) override {
        if (added_ == shape_.keys) return replace(key, value);
        unsigned char *record = fresh_.at(added_++ * fresh_record_size());
        std::memcpy(record + FRESH_HEAD, key.data, key.size);
        std::memcpy(record + FRESH_HEAD + key.size, value.data, value.size);
        benchlimit_link(fresh_index_.at(0), fresh_index_.size() / LINE, key.data, key.size, added_);
    }
    void replace(Bytes key, Bytes value) override {
        benchlimit_write(lines_.at(0), mask_, records_.at(0), record_size_, key.data, key.size, value.data, value.size);
    }
    /// The keys of a script lie one after the other.
    void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) override {
        size_t wide = n / AT_ONCE * AT_ONCE;
        auto *values = static_cast<unsigned char *>(into);
        for (size_t i = 0; i < wide; i += AT_ONCE) {
            benchlimit_find_16(lines_.at(0), mask_, records_.at(0), record_size_, keys[i].data, keys[i].size,
                               values + i * stride, stride);
        }
        DirectSystem::find_many(keys + wide, n - wide, values + wide * stride, stride, lengths + wide);
    }
    void put_many(const Bytes *keys, const Bytes *values, size_t n) override {
        size_t wide = n / AT_ONCE * AT_ONCE;
        for (size_t i = 0; i < wide; i += AT_ONCE) {
            benchlimit_write_16(lines_.at(0), mask_, records_.at(0), record_size_, keys + i, values + i);
        }
        DirectSystem::put_many(keys + wide, values + wide, n - wide);
    }
    int64_t count(Bytes key, int64_t delta) override {
        return benchlimit_count(lines_.at(0), mask_, records_.at(0), record_size_, key.data, key.size, delta);
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        benchlimit_group(lines_.at(0), mask_, records_.at(0), record_size_, keys, n, delta, log_.at(0), shape_.value_size);
    }
    void update(Bytes key, uint64_t delta) override {
        benchlimit_update(lines_.at(0), mask_, records_.at(0), record_size_, key.data, key.size, delta, log_.at(0),
                          shape_.value_size);
    }
    void visit(Visitor visitor, void *arg) override {
        for (size_t i = 0; i < shape_.keys; i++) {
            const unsigned char *record = records_.at(*record_of(i) * record_size_);
            visitor({record, shape_.key_size}, {record + HEAD, shape_.value_size}, arg);
        }
    }
    size_t memory_bytes() override { return lines_.size() + records_.size(); }

private:
    // What netshm takes for a key besides the bytes of key and value is 36, of which the record has these.
    static constexpr size_t LINE = 64, FRESH_HEAD = 16, FRESH_INDEX_BYTES = 20, MOST_TOGETHER = 8, AT_ONCE = 16;

    uint64_t *record_of(size_t line) { return reinterpret_cast<uint64_t *>(lines_.at(line * LINE)) + 1; }
    size_t fresh_record_size() const { return FRESH_HEAD + shape_.key_size + shape_.value_size; }
    /// What a process adds, and its log, are its own.
    void make_room() {
        added_ = 0;
        fresh_ = Memory(shape_.keys * fresh_record_size(), false);
        log_ = Memory(8 + MOST_TOGETHER * (8 + shape_.value_size), true);
    }

    Shape shape_ = {};
    size_t record_size_ = 0, added_ = 0;
    uint64_t mask_ = 0;
    Memory lines_, records_, fresh_, fresh_index_, log_;
};

}  // namespace

std::unique_ptr<System> make_limit() { return std::make_unique<Limit>(); }
