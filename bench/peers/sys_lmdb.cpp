// LMDB without syncs, with a writable map: one transaction for each operation, a read transaction that is renewed.
#include <lmdb.h>
#include <sys/stat.h>

#include "system.h"

namespace {

MDB_val datum(Bytes bytes) { return {bytes.size, const_cast<void *>(bytes.data)}; }

void must(int code, const char *what) {
    if (code != MDB_SUCCESS) throw Failure(std::string("lmdb: ") + what + ": " + mdb_strerror(code));
}

class Lmdb : public DirectSystem {
public:
    const char *name() const override { return "lmdb"; }
    Traits traits() const override {
        Traits traits;
        traits.most_writes_together = 40000;
        traits.setup = "NOSYNC, WRITEMAP, one transaction per operation, read transactions renewed; a batch is one";
        return traits;
    }

    void create(const Shape &shape, bool) override {
        if (mkdir(path_.c_str(), 0700) != 0) throw Failure("lmdb: mkdir");
        open(shape);
    }
    void open_existing(const Shape &shape) override { open(shape); }
    /// An environment must not be used in a child: it opens another one, and leaves the parent's alone.
    void after_fork() override { open(shape_); }
    /// Else the place in the table of readers would stay taken.
    void before_exit() override {
        mdb_txn_abort(reader_);
        mdb_env_close(env_);
    }
    void destroy() override {
        before_exit();
        remove_tree(path_);
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        must(mdb_txn_renew(reader_), "renew");
        size_t length = find_in(reader_, key, into, capacity);
        mdb_txn_reset(reader_);
        return length;
    }
    void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) override {
        must(mdb_txn_renew(reader_), "renew");
        for (size_t i = 0; i < n; i++) {
            lengths[i] = find_in(reader_, keys[i], static_cast<unsigned char *>(into) + i * stride, stride);
        }
        mdb_txn_reset(reader_);
    }
    void add(Bytes key, Bytes value) override { put(key, value, MDB_NOOVERWRITE); }
    void replace(Bytes key, Bytes value) override { put(key, value, 0); }
    void put_many(const Bytes *keys, const Bytes *values, size_t n) override {
        MDB_txn *txn = begin();
        for (size_t i = 0; i < n; i++) put_in(txn, keys[i], values[i], 0);
        must(mdb_txn_commit(txn), "commit");
    }
    bool remove(Bytes key) override {
        MDB_txn *txn = begin();
        MDB_val k = datum(key);
        int code = mdb_del(txn, dbi_, &k, nullptr);
        must(mdb_txn_commit(txn), "commit");
        return code == MDB_SUCCESS;
    }
    int64_t count(Bytes key, int64_t delta) override {
        MDB_txn *txn = begin();
        uint64_t counter = 0;
        find_in(txn, key, &counter, sizeof counter);
        counter += static_cast<uint64_t>(delta);
        put_in(txn, key, {&counter, sizeof counter}, 0);
        must(mdb_txn_commit(txn), "commit");
        return static_cast<int64_t>(counter);
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        MDB_txn *txn = begin();
        for (size_t i = 0; i < n; i++) {
            size_t length = find_in(txn, keys[i], buffer_.data(), buffer_.size());
            if (length == NONE) throw Failure("lmdb: a key has gone");
            raise(buffer_.data(), length, delta);
            put_in(txn, keys[i], {buffer_.data(), length}, 0);
        }
        must(mdb_txn_commit(txn), "commit");
    }

    void visit(Visitor visitor, void *arg) override {
        MDB_cursor *cursor;
        must(mdb_txn_renew(reader_), "renew");
        must(mdb_cursor_open(reader_, dbi_, &cursor), "cursor");
        MDB_val key, value;
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == MDB_SUCCESS) {
            visitor({key.mv_data, key.mv_size}, {value.mv_data, value.mv_size}, arg);
        }
        mdb_cursor_close(cursor);
        mdb_txn_reset(reader_);
    }
    size_t memory_bytes() override { return disk_usage(path_); }

private:
    void open(const Shape &shape) {
        shape_ = shape;
        buffer_.resize(shape.value_size);
        must(mdb_env_create(&env_), "create");
        size_t room = shape.keys * (shape.key_size + shape.value_size + 4096) * 2 + (size_t{1} << 30);
        must(mdb_env_set_mapsize(env_, room), "mapsize");
        must(mdb_env_open(env_, path_.c_str(), MDB_NOSYNC | MDB_WRITEMAP, 0600), "open");
        MDB_txn *txn = begin();
        must(mdb_dbi_open(txn, nullptr, 0, &dbi_), "dbi");
        must(mdb_txn_commit(txn), "commit");
        must(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader_), "begin");
        mdb_txn_reset(reader_);
    }
    MDB_txn *begin() {
        MDB_txn *txn;
        must(mdb_txn_begin(env_, nullptr, 0, &txn), "begin");
        return txn;
    }
    size_t find_in(MDB_txn *txn, Bytes key, void *into, size_t capacity) {
        MDB_val k = datum(key), value;
        int code = mdb_get(txn, dbi_, &k, &value);
        if (code == MDB_NOTFOUND) return NONE;
        must(code, "get");
        std::memcpy(into, value.mv_data, std::min(value.mv_size, capacity));
        return value.mv_size;
    }
    void put_in(MDB_txn *txn, Bytes key, Bytes value, unsigned flags) {
        MDB_val k = datum(key), v = datum(value);
        must(mdb_put(txn, dbi_, &k, &v, flags), "put");
    }
    void put(Bytes key, Bytes value, unsigned flags) {
        MDB_txn *txn = begin();
        put_in(txn, key, value, flags);
        must(mdb_txn_commit(txn), "commit");
    }

    std::string path_ = scratch_path("lmdb");
    Shape shape_ = {};
    MDB_env *env_ = nullptr;
    MDB_dbi dbi_ = 0;
    MDB_txn *reader_ = nullptr;
    std::vector<unsigned char> buffer_;
};

}  // namespace

std::unique_ptr<System> make_lmdb() { return std::make_unique<Lmdb>(); }
