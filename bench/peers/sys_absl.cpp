// absl::flat_hash_map of strings in private memory, without locks: what one process alone could have.
#include <absl/container/flat_hash_map.h>
#include <absl/strings/string_view.h>
#include <malloc.h>

#include "system.h"

namespace {

absl::string_view view(Bytes bytes) { return {static_cast<const char *>(bytes.data), bytes.size}; }

size_t heap_in_use() {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

class Absl : public DirectSystem {
public:
    const char *name() const override { return "absl"; }
    Traits traits() const override {
        Traits traits;
        traits.shared = false;
        traits.presizes = true;
        traits.setup = "flat_hash_map<string, string>, private, no locks";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        before_ = heap_in_use();
        map_ = std::make_unique<Map>();
        if (presized) map_->reserve(shape.keys);
    }
    void destroy() override { map_.reset(); }

    size_t find(Bytes key, void *into, size_t) override {
        auto place = map_->find(view(key));
        if (place == map_->end()) return NONE;
        std::memcpy(into, place->second.data(), place->second.size());
        return place->second.size();
    }
    void add(Bytes key, Bytes value) override { map_->emplace(view(key), view(value)); }
    void replace(Bytes key, Bytes value) override {
        map_->find(view(key))->second.assign(static_cast<const char *>(value.data), value.size);
    }
    bool remove(Bytes key) override { return map_->erase(view(key)) == 1; }
    int64_t count(Bytes key, int64_t delta) override {
        auto place = map_->find(view(key));
        if (place == map_->end()) place = map_->emplace(view(key), std::string(8, '\0')).first;
        raise(place->second.data(), 8, static_cast<uint64_t>(delta));
        return static_cast<int64_t>(word_at(place->second.data()));
    }
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        for (size_t i = 0; i < n; i++) {
            std::string &value = map_->find(view(keys[i]))->second;
            raise(value.data(), value.size(), delta);
        }
    }
    void visit(Visitor visitor, void *arg) override {
        for (const auto &[key, value] : *map_) visitor({key.data(), key.size()}, {value.data(), value.size()}, arg);
    }
    size_t memory_bytes() override { return heap_in_use() - before_; }

private:
    using Map = absl::flat_hash_map<std::string, std::string>;
    std::unique_ptr<Map> map_;
    size_t before_ = 0;
};

}  // namespace

std::unique_ptr<System> make_absl() { return std::make_unique<Absl>(); }
