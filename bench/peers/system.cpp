#include "system.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "clock.h"

namespace {

/// Judges what was found for the i-th key of a script.
void judge(const Script &script, size_t i, const unsigned char *value, size_t length, const char *system) {
    uint64_t stamp = length == script.value_size ? word_at(value) : ~uint64_t{0};
    bool right = (stamp & NUMBER_MASK) == script.numbers[i] && last_word(value, length) == stamp &&
                 (!script.exact || stamp == script.stamp(i));
    if (right && (!script.exact || has_right_body(value, length))) return;
    throw Failure(std::string(system) + ": wrong value for key " + std::to_string(script.numbers[i]) + ": " +
                  (length == DirectSystem::NONE ? "none" : std::to_string(length) + " bytes, stamp " + std::to_string(stamp)));
}

/// Performs a script's steps on a system.
class Performer {
public:
    Performer(DirectSystem &system, const Script &script)
        : system_(system), script_(script), judged_(system.traits().judged), value_(script.value_size),
          into_(script.value_size * script.width), batch_keys_(script.width), batch_values_(script.width),
          lengths_(script.width) {
        for (size_t i = 0; i < script.width; i++) batch_.emplace_back(script.value_size);
    }

    void step(size_t i) {
        switch (script_.steps[i]) {
        case Step::find: return found(i, into_.data(), system_.find(script_.key(i), into_.data(), into_.size()));
        case Step::miss: return demand(system_.lacks(script_.key(i), into_.data(), into_.size()), i);
        case Step::add: return system_.add(script_.key(i), value_.with(script_.stamp(i)));
        case Step::replace: return system_.replace(script_.key(i), value_.with(script_.stamp(i)));
        case Step::remove: return demand(system_.remove(script_.key(i)), i);
        case Step::count: return count(i);
        case Step::update: return system_.update(script_.key(i), script_.delta);
        case Step::group: return group(i);
        case Step::find_many: return find_many(i);
        case Step::put_many: return put_many(i);
        }
    }
    uint64_t sum = 0;

private:
    void demand(bool right, size_t i) const {
        if (!right && judged_) {
            throw Failure(std::string(system_.name()) + ": a wrong answer for key " + std::to_string(script_.numbers[i]));
        }
    }
    void found(size_t i, const unsigned char *value, size_t length) const {
        if (judged_) judge(script_, i, value, length, system_.name());
    }
    void collect_keys(size_t i) {
        for (size_t k = 0; k < script_.width; k++) batch_keys_[k] = script_.key(i * script_.width + k);
    }
    void count(size_t i) {
        sum += static_cast<uint64_t>(system_.count(script_.key(i), static_cast<int64_t>(script_.delta)));
    }
    void group(size_t i) {
        collect_keys(i);
        system_.raise_together(batch_keys_.data(), script_.width, script_.delta);
    }
    void find_many(size_t i) {
        collect_keys(i);
        system_.find_many(batch_keys_.data(), script_.width, into_.data(), script_.value_size, lengths_.data());
        for (size_t k = 0; k < script_.width; k++) {
            found(i * script_.width + k, into_.data() + k * script_.value_size, lengths_[k]);
        }
    }
    void put_many(size_t i) {
        collect_keys(i);
        for (size_t k = 0; k < script_.width; k++) batch_values_[k] = batch_[k].with(script_.stamp(i * script_.width + k));
        system_.put_many(batch_keys_.data(), batch_values_.data(), script_.width);
    }

    DirectSystem &system_;
    const Script &script_;
    bool judged_;
    Value value_;
    std::vector<Value> batch_;
    std::vector<unsigned char> into_;
    std::vector<Bytes> batch_keys_, batch_values_;
    std::vector<size_t> lengths_;
};

/// Bytes of the largest key and value that are copied.
constexpr size_t MOST_COPIED = (size_t{1} << 20) + 4096;

struct Seen {
    size_t done = 0, wrong = 0;
    uint64_t sum = 0, read = 0;
};

/// Reads all of the value, as who iterates does, whether it came as a pointer or as a copy.
void see(Bytes, Bytes value, void *arg) {
    Seen &seen = *static_cast<Seen *>(arg);
    seen.done++;
    for (size_t i = 0; i + 8 <= value.size; i += 8) seen.read ^= word_at(static_cast<const char *>(value.data) + i);
    if (value.size < 8 || last_word(value.data, value.size) != word_at(value.data)) {
        seen.wrong++;
    } else {
        seen.sum += word_at(value.data) & NUMBER_MASK;
    }
}

/// Sees a binding in a copy of its own.
struct Copying {
    Seen *seen;
    std::vector<unsigned char> buffer;

    static void copy(Bytes key, Bytes value, void *arg) {
        Copying &self = *static_cast<Copying *>(arg);
        unsigned char *copied_key = self.buffer.data(), *copied_value = copied_key + key.size;
        std::memcpy(copied_key, key.data, key.size);
        std::memcpy(copied_value, value.data, value.size);
        see({copied_key, key.size}, {copied_value, value.size}, self.seen);
    }
};

}  // namespace

Outcome DirectSystem::perform(const Script &script, size_t from, size_t to, Latencies *times) {
    Performer performer(*this, script);
    double start = now_ns();
    if (times) {
        for (size_t i = from; i < to; i++) {
            uint64_t first = ticks();
            performer.step(i);
            times->record(ticks() - first);
        }
    } else {
        for (size_t i = from; i < to; i++) performer.step(i);
    }
    return {now_ns() - start, to - from, performer.sum};
}

Outcome DirectSystem::iterate(bool copying) {
    Seen seen;
    Copying copies = {&seen, std::vector<unsigned char>(copying ? MOST_COPIED : 0)};
    double start = now_ns();
    if (copying) visit(Copying::copy, &copies);
    else visit(see, &seen);
    double took = now_ns() - start;
    asm volatile("" : : "r"(seen.read));
    if (seen.wrong) throw Failure(std::string(name()) + ": wrong values were iterated");
    return {took, seen.done, seen.sum};
}

void DirectSystem::find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) {
    for (size_t i = 0; i < n; i++) lengths[i] = find(keys[i], static_cast<unsigned char *>(into) + i * stride, stride);
}

void DirectSystem::put_many(const Bytes *keys, const Bytes *values, size_t n) {
    for (size_t i = 0; i < n; i++) replace(keys[i], values[i]);
}

size_t disk_usage(const std::string &path) {
    namespace fs = std::filesystem;
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return 0;
    if (!S_ISDIR(status.st_mode)) return static_cast<size_t>(status.st_blocks) * 512;
    size_t sum = 0;
    for (const auto &entry : fs::directory_iterator(path)) sum += disk_usage(entry.path());
    return sum;
}

std::string scratch_path(const std::string &what) {
    return "/dev/shm/netshm-peers-" + what + "-" + std::to_string(getpid());
}

void remove_tree(const std::string &path) { std::filesystem::remove_all(path); }

void remove_leftovers() {
    for (const char *directory : {"/dev/shm", "/tmp"}) {
        for (const auto &entry : std::filesystem::directory_iterator(directory)) {
            std::string name = entry.path().filename();
            if (name.rfind("netshm-peers-", 0) != 0) continue;
            int pid = std::atoi(name.c_str() + name.rfind('-') + 1);
            std::error_code ignored;  // another run may be doing the same
            if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) std::filesystem::remove_all(entry.path(), ignored);
        }
    }
}
