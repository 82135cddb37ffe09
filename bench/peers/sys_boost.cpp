// Boost: an unordered_map in a managed shared memory segment, under one sharable mutex. The segment never grows: it is
// made as large as the work will need.
#include <boost/container/string.hpp>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/interprocess/sync/sharable_lock.hpp>
#include <boost/unordered_map.hpp>
#include <string_view>

#include "system.h"

namespace {

namespace ipc = boost::interprocess;
using Segment = ipc::managed_shared_memory;
template <class T>
using Allocator = ipc::allocator<T, Segment::segment_manager>;
using String = boost::container::basic_string<char, std::char_traits<char>, Allocator<char>>;

std::string_view view(Bytes bytes) { return {static_cast<const char *>(bytes.data), bytes.size}; }
std::string_view view(const String &string) { return {string.data(), string.size()}; }
std::string_view view(std::string_view same) { return same; }

/// Keys are looked up by views, so that no string is made for it.
struct Hash {
    template <class T>
    size_t operator()(const T &key) const { return std::hash<std::string_view>()(view(key)); }
};
struct Equal {
    template <class A, class B>
    bool operator()(const A &a, const B &b) const { return view(a) == view(b); }
};
using Map = boost::unordered_map<String, String, Hash, Equal, Allocator<std::pair<const String, String>>>;
using Reading = ipc::sharable_lock<ipc::interprocess_sharable_mutex>;
using Writing = ipc::scoped_lock<ipc::interprocess_sharable_mutex>;

class Boost : public DirectSystem {
public:
    const char *name() const override { return "boost"; }
    Traits traits() const override {
        Traits traits;
        traits.presizes = true;
        traits.setup = "Interprocess unordered_map<string, string>, one sharable mutex; the segment's size is given in advance";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        size_t room = shape.keys * (shape.key_size + shape.value_size + 256) * 2 + (size_t{64} << 20);
        segment_ = std::make_unique<Segment>(ipc::create_only, name_.c_str(), room);
        auto manager = segment_->get_segment_manager();
        map_ = segment_->construct<Map>("map")(presized ? shape.keys : 0, Hash(), Equal(), manager);
        mutex_ = segment_->construct<ipc::interprocess_sharable_mutex>("mutex")();
        before_ = segment_->get_free_memory();
    }
    void open_existing(const Shape &) override {
        segment_ = std::make_unique<Segment>(ipc::open_only, name_.c_str());
        map_ = segment_->find<Map>("map").first;
        mutex_ = segment_->find<ipc::interprocess_sharable_mutex>("mutex").first;
    }
    void destroy() override {
        segment_.reset();
        ipc::shared_memory_object::remove(name_.c_str());
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        Reading lock(*mutex_);
        return find_locked(key, into, capacity);
    }
    void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) override {
        Reading lock(*mutex_);
        for (size_t i = 0; i < n; i++) lengths[i] = find_locked(keys[i], static_cast<unsigned char *>(into) + i * stride, stride);
    }
    void add(Bytes key, Bytes value) override {
        Writing lock(*mutex_);
        map_->emplace(string(key), string(value));
    }
    void replace(Bytes key, Bytes value) override {
        Writing lock(*mutex_);
        stored(key).assign(static_cast<const char *>(value.data), value.size);
    }
    void put_many(const Bytes *keys, const Bytes *values, size_t n) override {
        Writing lock(*mutex_);
        for (size_t i = 0; i < n; i++) stored(keys[i]).assign(static_cast<const char *>(values[i].data), values[i].size);
    }
    bool remove(Bytes key) override {
        Writing lock(*mutex_);
        auto place = place_of(key);
        if (place == map_->end()) return false;
        map_->erase(place);
        return true;
    }
    int64_t count(Bytes key, int64_t delta) override {
        Writing lock(*mutex_);
        auto place = place_of(key);
        if (place == map_->end()) place = map_->emplace(string(key), string({"\0\0\0\0\0\0\0", 8})).first;
        raise(place->second.data(), 8, static_cast<uint64_t>(delta));
        return static_cast<int64_t>(word_at(place->second.data()));
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        Writing lock(*mutex_);
        for (size_t i = 0; i < n; i++) {
            String &value = stored(keys[i]);
            raise(value.data(), value.size(), delta);
        }
    }
    void visit(Visitor visitor, void *arg) override {
        Reading lock(*mutex_);
        for (const auto &[key, value] : *map_) visitor({key.data(), key.size()}, {value.data(), value.size()}, arg);
    }
    size_t memory_bytes() override { return before_ - segment_->get_free_memory(); }

private:
    String string(Bytes bytes) const {
        return {static_cast<const char *>(bytes.data), bytes.size, Allocator<char>(segment_->get_segment_manager())};
    }
    Map::iterator place_of(Bytes key) { return map_->find(view(key), Hash(), Equal()); }
    String &stored(Bytes key) {
        auto place = place_of(key);
        if (place == map_->end()) throw Failure("boost: a key has gone");
        return place->second;
    }
    size_t find_locked(Bytes key, void *into, size_t capacity) {
        auto place = place_of(key);
        if (place == map_->end()) return NONE;
        std::memcpy(into, place->second.data(), std::min(place->second.size(), capacity));
        return place->second.size();
    }

    std::string name_ = scratch_path("boost").substr(std::strlen("/dev/shm/"));
    std::unique_ptr<Segment> segment_;
    Map *map_ = nullptr;
    ipc::interprocess_sharable_mutex *mutex_ = nullptr;
    size_t before_ = 0;
};

}  // namespace

std::unique_ptr<System> make_boost() { return std::make_unique<Boost>(); }
