// Berkeley DB: a hash in a Concurrent Data Store environment whose files are in /dev/shm. A read-modify-write goes
// through a write cursor, which keeps other writers out.
#include <db.h>
#include <sys/stat.h>

#include "system.h"

namespace {

void must(int code, const char *what) {
    if (code != 0) throw Failure(std::string("bdb: ") + what + ": " + db_strerror(code));
}

DBT datum(Bytes bytes) {
    DBT dbt = {};
    dbt.data = const_cast<void *>(bytes.data);
    dbt.size = static_cast<u_int32_t>(bytes.size);
    return dbt;
}

DBT buffer(void *into, size_t capacity) {
    DBT dbt = {};
    dbt.data = into;
    dbt.ulen = static_cast<u_int32_t>(capacity);
    dbt.flags = DB_DBT_USERMEM;
    return dbt;
}

class Bdb : public DirectSystem {
public:
    const char *name() const override { return "bdb"; }
    Traits traits() const override {
        Traits traits;
        traits.presizes = true;
        traits.most_writes_together = 20000;
        traits.setup = "Concurrent Data Store, hash, the cache larger than the data; groups by a write cursor, without rollback";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        if (mkdir(path_.c_str(), 0700) != 0) throw Failure("bdb: mkdir");
        open(shape, DB_CREATE, presized);
    }
    void open_existing(const Shape &shape) override { open(shape, 0, false); }
    /// Handles must not be used in a child: it opens others, and leaves the parent's alone.
    void after_fork() override { open(shape_, 0, false); }
    void before_exit() override {
        db_->close(db_, DB_NOSYNC);
        env_->close(env_, 0);
    }
    void destroy() override {
        before_exit();
        remove_tree(path_);
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        DBT k = datum(key), value = buffer(into, capacity);
        int code = db_->get(db_, nullptr, &k, &value, 0);
        if (code == DB_NOTFOUND) return NONE;
        must(code, "get");
        return value.size;
    }
    void add(Bytes key, Bytes value) override { put(key, value, DB_NOOVERWRITE); }
    void replace(Bytes key, Bytes value) override { put(key, value, 0); }
    bool remove(Bytes key) override {
        DBT k = datum(key);
        return db_->del(db_, nullptr, &k, 0) == 0;
    }
    int64_t count(Bytes key, int64_t delta) override {
        DBC *cursor = write_cursor();
        uint64_t counter = 0;
        DBT k = datum(key), value = buffer(&counter, sizeof counter);
        int code = cursor->get(cursor, &k, &value, DB_SET);
        counter += static_cast<uint64_t>(delta);
        DBT now = datum({&counter, sizeof counter});
        if (code == 0) {
            must(cursor->put(cursor, &k, &now, DB_CURRENT), "put");
        } else {
            must(cursor->put(cursor, &k, &now, DB_KEYFIRST), "put");
        }
        must(cursor->close(cursor), "cursor");
        return static_cast<int64_t>(counter);
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        DBC *cursor = write_cursor();
        for (size_t i = 0; i < n; i++) {
            DBT k = datum(keys[i]), value = buffer(buffer_.data(), buffer_.size());
            must(cursor->get(cursor, &k, &value, DB_SET), "get");
            raise(buffer_.data(), value.size, delta);
            DBT now = datum({buffer_.data(), value.size});
            must(cursor->put(cursor, &k, &now, DB_CURRENT), "put");
        }
        must(cursor->close(cursor), "cursor");
    }

    void visit(Visitor visitor, void *arg) override {
        DBC *cursor;
        must(db_->cursor(db_, nullptr, &cursor, 0), "cursor");
        DBT key = {}, value = {};
        while (cursor->get(cursor, &key, &value, DB_NEXT) == 0) visitor({key.data, key.size}, {value.data, value.size}, arg);
        must(cursor->close(cursor), "cursor");
    }
    size_t memory_bytes() override { return disk_usage(path_); }

private:
    void open(const Shape &shape, u_int32_t flags, bool presized) {
        shape_ = shape;
        buffer_.resize(shape.value_size);
        size_t cache = shape.keys * (shape.key_size + shape.value_size + 64) * 3 + (size_t{64} << 20);
        must(db_env_create(&env_, 0), "env");
        must(env_->set_cachesize(env_, static_cast<u_int32_t>(cache >> 30), static_cast<u_int32_t>(cache & ((1u << 30) - 1)), 1),
             "cachesize");
        must(env_->open(env_, path_.c_str(), DB_INIT_CDB | DB_INIT_MPOOL | flags, 0600), "env open");
        must(db_create(&db_, env_, 0), "create");
        if (presized) must(db_->set_h_nelem(db_, static_cast<u_int32_t>(shape.keys)), "nelem");
        must(db_->open(db_, nullptr, "table", nullptr, DB_HASH, flags, 0600), "open");
    }
    void put(Bytes key, Bytes value, u_int32_t flags) {
        DBT k = datum(key), v = datum(value);
        must(db_->put(db_, nullptr, &k, &v, flags), "put");
    }
    DBC *write_cursor() {
        DBC *cursor;
        must(db_->cursor(db_, nullptr, &cursor, DB_WRITECURSOR), "cursor");
        return cursor;
    }

    std::string path_ = scratch_path("bdb");
    Shape shape_ = {};
    DB_ENV *env_ = nullptr;
    DB *db_ = nullptr;
    std::vector<unsigned char> buffer_;
};

}  // namespace

std::unique_ptr<System> make_bdb() { return std::make_unique<Bdb>(); }
