// netshm through its shared library, with default options: POSIX shared memory, default locking.
#include <netshm.h>
#include <unistd.h>

#include "system.h"

namespace {

void must(int code, const char *what) {
    if (code == NETSHM_OK) return;
    netshm_error error = {};
    error.size = sizeof error;
    netshm_last_error(&error);
    throw Failure(std::string("netshm: ") + what + ": " + netshm_strerror(code) + ": " + error.text);
}

class Netshm : public DirectSystem {
public:
    const char *name() const override { return "netshm"; }
    Traits traits() const override {
        Traits traits;
        traits.presizes = true;
        traits.counts_in_groups = true;
#ifndef HAVE_MANY
        traits.batches = false;
#endif
        traits.setup = "POSIX shared memory, default options; groups of several keys by find_many and replace_many";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        buffer_.resize(shape.value_size);
        must(netshm_open(NETSHM_POSIX, file_.c_str(), memory_.c_str(), NETSHM_RDWR | NETSHM_CREAT | NETSHM_EXCL, 0600, &object_),
             "open");
        netshm_options options = NETSHM_OPTIONS_INIT;
        if (presized) options.init = shape.keys;
        must(netshm_hashtbl_manage(object_, nullptr, nullptr, &options, &table_), "manage");
    }
    void open_existing(const Shape &) override {
        must(netshm_open(NETSHM_POSIX, file_.c_str(), memory_.c_str(), NETSHM_RDWR, 0, &object_), "open");
        must(netshm_hashtbl_manage(object_, nullptr, nullptr, nullptr, &table_), "manage");
    }
    std::unique_ptr<System> another() const override { return std::make_unique<Netshm>(); }
    void destroy() override {
        netshm_hashtbl_close(table_);
        netshm_close(object_);
        must(netshm_unlink(NETSHM_POSIX, file_.c_str(), memory_.c_str()), "unlink");
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        size_t length;
        int code = netshm_hashtbl_find(table_, key.data, key.size, into, capacity, &length);
        if (code == NETSHM_E_NOT_FOUND) return NONE;
        must(code, "find");
        return length;
    }
    void add(Bytes key, Bytes value) override {
        must(netshm_hashtbl_add(table_, key.data, key.size, value.data, value.size), "add");
    }
    void replace(Bytes key, Bytes value) override {
        must(netshm_hashtbl_replace(table_, key.data, key.size, value.data, value.size), "replace");
    }
    bool remove(Bytes key) override {
        int was_there;
        must(netshm_hashtbl_remove(table_, key.data, key.size, &was_there), "remove");
        return was_there != 0;
    }
    int64_t count(Bytes key, int64_t delta) override {
        int64_t now;
        must(netshm_hashtbl_incr(table_, key.data, key.size, delta, 0, &now), "incr");
        return now;
    }

    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        netshm_table *table = netshm_hashtbl_table(table_);
        netshm_txn *group = nullptr;
        int code = netshm_group_begin(table, &group);
        while (code == NETSHM_OK) {
            code = raise_in_group(keys, n, delta);
            if (code == NETSHM_OK) {
                code = netshm_group_commit(group);
                if (code != NETSHM_E_DEADLOCK) break;
                code = netshm_group_begin(table, &group);  // a group that has failed to commit is gone
            } else if (code == NETSHM_E_DEADLOCK) {
                code = netshm_group_restart(group);
            }
        }
        must(code, "group");
    }
    void update(Bytes key, uint64_t delta) override {
        delta_ = delta;
        must(netshm_hashtbl_update(table_, key.data, key.size, raise_old, this), "update");
    }

#ifdef HAVE_MANY
    void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) override {
        std::vector<int64_t> found(n);
        std::vector<netshm_slice> wanted = slices(keys, n);
        must(netshm_hashtbl_find_many_into(table_, wanted.data(), n, into, stride, found.data()), "find_many_into");
        for (size_t i = 0; i < n; i++) lengths[i] = found[i] < 0 ? NONE : static_cast<size_t>(found[i]);
    }
    void put_many(const Bytes *keys, const Bytes *values, size_t n) override {
        std::vector<netshm_slice> k = slices(keys, n), v = slices(values, n);
        must(netshm_hashtbl_replace_many(table_, k.data(), v.data(), n, nullptr), "replace_many");
    }
#endif

    void visit(Visitor visitor, void *arg) override {
        struct Both {
            Visitor visitor;
            void *arg;
        } both = {visitor, arg};
        auto see = [](netshm_slice key, netshm_slice value, void *p) {
            auto &both = *static_cast<Both *>(p);
            both.visitor({key.data, key.len}, {value.data, value.len}, both.arg);
            return NETSHM_CONTINUE;
        };
        must(netshm_hashtbl_iter(table_, see, &both), "iter");
    }
    size_t memory_bytes() override { return disk_usage("/dev/shm" + memory_); }

private:
#ifdef HAVE_MANY
    static std::vector<netshm_slice> slices(const Bytes *bytes, size_t n) {
        std::vector<netshm_slice> slices(n);
        for (size_t i = 0; i < n; i++) slices[i] = {bytes[i].data, bytes[i].size};
        return slices;
    }
#endif
    int raise_in_group(const Bytes *keys, size_t n, uint64_t delta) {
#ifdef HAVE_MANY
        // In one call each, as for whoever knows his keys, which differ, beforehand.
        if (n > 1) {
            size_t stride = buffer_.size();
            together_.resize(n * stride);
            found_.resize(n);
            std::vector<netshm_slice> wanted = slices(keys, n), values(n);
            int code = netshm_hashtbl_find_many_into(table_, wanted.data(), n, together_.data(), stride, found_.data());
            if (code != NETSHM_OK) return code;
            for (size_t i = 0; i < n; i++) {
                if (found_[i] < 0) return NETSHM_E_NOT_FOUND;
                values[i] = {&together_[i * stride], static_cast<size_t>(found_[i])};
                raise(&together_[i * stride], values[i].len, delta);
            }
            return netshm_hashtbl_replace_many(table_, wanted.data(), values.data(), n, nullptr);
        }
#endif
        int code = NETSHM_OK;
        for (size_t i = 0; i < n && code == NETSHM_OK; i++) code = raise_one(keys[i], delta);
        return code;
    }
    int raise_one(Bytes key, uint64_t delta) {
        size_t length;
        int code = netshm_hashtbl_find(table_, key.data, key.size, buffer_.data(), buffer_.size(), &length);
        if (code != NETSHM_OK) return code;
        raise(buffer_.data(), length, delta);
        return netshm_hashtbl_replace(table_, key.data, key.size, buffer_.data(), length);
    }
    static int raise_old(netshm_update *update, const void *old, size_t length, void *arg) {
        auto &self = *static_cast<Netshm *>(arg);
        if (!old || length > self.buffer_.size()) return NETSHM_E_CALLER;
        std::memcpy(self.buffer_.data(), old, length);
        raise(self.buffer_.data(), length, self.delta_);
        int code = netshm_update_set(update, self.buffer_.data(), length);
        return code == NETSHM_OK ? NETSHM_REPLACE : code;
    }

    std::string suffix_ = std::to_string(getpid());
    std::string file_ = "/tmp/netshm-peers-" + suffix_, memory_ = "/netshm-peers-" + suffix_;
    netshm_object *object_ = nullptr;
    netshm_hashtbl *table_ = nullptr;
    std::vector<unsigned char> buffer_, together_;
    std::vector<int64_t> found_;
    uint64_t delta_ = 0;
};

}  // namespace

std::unique_ptr<System> make_netshm() { return std::make_unique<Netshm>(); }
