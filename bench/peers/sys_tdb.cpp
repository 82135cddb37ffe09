// TDB with robust mutexes. Its hash table never grows, so it is told its size in every row.
extern "C" {
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>
#include <tdb.h>
}
#include <unistd.h>

#include "system.h"

namespace {

TDB_DATA datum(Bytes bytes) {
    return {static_cast<unsigned char *>(const_cast<void *>(bytes.data)), bytes.size};
}

struct Target {
    void *into;
    size_t capacity, length;
};

int copy_out(TDB_DATA, TDB_DATA value, void *arg) {
    auto &target = *static_cast<Target *>(arg);
    target.length = value.dsize;
    std::memcpy(target.into, value.dptr, std::min(value.dsize, target.capacity));
    return 0;
}

class Tdb : public DirectSystem {
public:
    const char *name() const override { return "tdb"; }
    Traits traits() const override {
        Traits traits;
        traits.most_groups = 100;  // each takes every chain's mutex
        traits.setup = "mutexes, NOSYNC, as many hash chains as keys; groups lock all chains, without rollback";
        return traits;
    }

    void create(const Shape &shape, bool) override { open(shape, O_CREAT | O_RDWR); }
    void open_existing(const Shape &shape) override { open(shape, O_RDWR); }
    void after_fork() override { must(tdb_reopen(tdb_), "reopen"); }
    void before_exit() override { tdb_close(tdb_); }
    void destroy() override {
        tdb_close(tdb_);
        unlink(path_.c_str());
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        Target target = {into, capacity, NONE};
        if (tdb_parse_record(tdb_, datum(key), copy_out, &target) != 0 && tdb_error(tdb_) != TDB_ERR_NOEXIST) {
            must(-1, "parse_record");
        }
        return target.length;
    }
    void add(Bytes key, Bytes value) override { must(tdb_store(tdb_, datum(key), datum(value), TDB_INSERT), "store"); }
    void replace(Bytes key, Bytes value) override {
        must(tdb_store(tdb_, datum(key), datum(value), TDB_REPLACE), "store");
    }
    bool remove(Bytes key) override { return tdb_delete(tdb_, datum(key)) == 0; }

    int64_t count(Bytes key, int64_t delta) override {
        must(tdb_chainlock(tdb_, datum(key)), "chainlock");
        uint64_t counter = 0;
        find(key, &counter, sizeof counter);
        counter += static_cast<uint64_t>(delta);
        replace(key, {&counter, sizeof counter});
        must(tdb_chainunlock(tdb_, datum(key)), "chainunlock");
        return static_cast<int64_t>(counter);
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        must(tdb_lockall(tdb_), "lockall");
        for (size_t i = 0; i < n; i++) raise_stored(keys[i], delta);
        must(tdb_unlockall(tdb_), "unlockall");
    }
    void update(Bytes key, uint64_t delta) override {
        must(tdb_chainlock(tdb_, datum(key)), "chainlock");
        raise_stored(key, delta);
        must(tdb_chainunlock(tdb_, datum(key)), "chainunlock");
    }

    void visit(Visitor visitor, void *arg) override {
        struct Both {
            Visitor visitor;
            void *arg;
        } both = {visitor, arg};
        auto see = [](tdb_context *, TDB_DATA key, TDB_DATA value, void *p) {
            auto &both = *static_cast<Both *>(p);
            both.visitor({key.dptr, key.dsize}, {value.dptr, value.dsize}, both.arg);
            return 0;
        };
        if (tdb_traverse_read(tdb_, see, &both) < 0) must(-1, "traverse");
    }
    size_t memory_bytes() override { return disk_usage(path_); }

private:
    void open(const Shape &shape, int flags) {
        buffer_.resize(shape.value_size);
        tdb_ = tdb_open(path_.c_str(), static_cast<int>(shape.keys | 1),
                        TDB_NOSYNC | TDB_CLEAR_IF_FIRST | TDB_MUTEX_LOCKING | TDB_INCOMPATIBLE_HASH, flags, 0600);
        if (!tdb_) throw Failure("tdb: open");
    }
    void must(int code, const char *what) {
        if (code != 0) throw Failure(std::string("tdb: ") + what + ": " + tdb_errorstr(tdb_));
    }
    void raise_stored(Bytes key, uint64_t delta) {
        size_t length = find(key, buffer_.data(), buffer_.size());
        if (length > buffer_.size()) throw Failure("tdb: a key has gone");
        raise(buffer_.data(), length, delta);
        replace(key, {buffer_.data(), length});
    }

    std::string path_ = scratch_path("tdb");
    tdb_context *tdb_ = nullptr;
    std::vector<unsigned char> buffer_;
};

}  // namespace

std::unique_ptr<System> make_tdb() { return std::make_unique<Tdb>(); }
