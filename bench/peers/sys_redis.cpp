// Redis over a Unix socket: a server of our own, without persistence, which ends with us.
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system.h"

namespace {

class Redis : public DirectSystem {
public:
    const char *name() const override { return "redis"; }
    Traits traits() const override {
        Traits traits;
        traits.most_operations = traits.most_writes_together = 20000;
        traits.setup = "Unix socket, no persistence, hiredis; batches by MGET and MSET, groups by WATCH and MULTI";
        return traits;
    }

    void create(const Shape &, bool) override {
        if (mkdir(path_.c_str(), 0700) != 0) throw Failure("redis: mkdir");
        server_ = start_server();
        for (int tries = 0; !connect(); tries++) {
            if (tries == 500 || waitpid(server_, nullptr, WNOHANG) != 0) throw Failure("redis: the server does not answer");
            usleep(10000);
        }
        before_ = memory_in_use();
    }
    void open_existing(const Shape &) override {
        if (!connect()) throw Failure("redis: connect");
    }
    void after_fork() override { open_existing({}); }
    void before_exit() override { redisFree(context_); }
    void destroy() override {
        redisFree(context_);
        kill(server_, SIGTERM);
        waitpid(server_, nullptr, 0);
        remove_tree(path_);
    }

    size_t find(Bytes key, void *into, size_t capacity) override {
        Reply reply = call({{"GET", 3}, key});
        return copied(*reply, into, capacity);
    }
    void find_many(const Bytes *keys, size_t n, void *into, size_t stride, size_t *lengths) override {
        std::vector<Bytes> words(keys, keys + n);
        words.insert(words.begin(), {"MGET", 4});
        Reply reply = call(words);
        for (size_t i = 0; i < n; i++) lengths[i] = copied(*reply->element[i], static_cast<char *>(into) + i * stride, stride);
    }
    void add(Bytes key, Bytes value) override { replace(key, value); }
    void replace(Bytes key, Bytes value) override { call({{"SET", 3}, key, value}); }
    void put_many(const Bytes *keys, const Bytes *values, size_t n) override {
        std::vector<Bytes> words = {{"MSET", 4}};
        for (size_t i = 0; i < n; i++) words.insert(words.end(), {keys[i], values[i]});
        call(words);
    }
    bool remove(Bytes key) override { return call({{"DEL", 3}, key})->integer == 1; }
    int64_t count(Bytes key, int64_t delta) override {
        std::string by = std::to_string(delta);
        return call({{"INCRBY", 6}, key, {by.data(), by.size()}})->integer;
    }
    /// Optimistic, in two round trips: EXEC fails if somebody has changed a key since WATCH.
    void raise_together(const Bytes *keys, size_t n, uint64_t delta) override {
        for (bool done = false; !done;) {
            send({{"WATCH", 5}}, keys, n);
            send({{"MGET", 4}}, keys, n);
            receive();
            Reply old = receive();
            send({{"MULTI", 5}});
            for (size_t i = 0; i < n; i++) {
                redisReply &value = *old->element[i];
                if (value.type != REDIS_REPLY_STRING) throw Failure("redis: a key has gone");
                raise(value.str, static_cast<size_t>(value.len), delta);
                send({{"SET", 3}, keys[i], {value.str, static_cast<size_t>(value.len)}});
            }
            send({{"EXEC", 4}});
            for (size_t i = 0; i <= n; i++) receive();
            done = receive()->type == REDIS_REPLY_ARRAY;
        }
    }

    void visit(Visitor visitor, void *arg) override {
        std::string cursor = "0";
        do {
            Reply reply = call({{"SCAN", 4}, {cursor.data(), cursor.size()}, {"COUNT", 5}, {"1000", 4}});
            cursor = reply->element[0]->str;
            redisReply &keys = *reply->element[1];
            if (keys.elements == 0) continue;
            std::vector<Bytes> words = {{"MGET", 4}};
            for (size_t i = 0; i < keys.elements; i++) words.push_back(bytes_of(*keys.element[i]));
            Reply values = call(words);
            for (size_t i = 0; i < keys.elements; i++) visitor(words[i + 1], bytes_of(*values->element[i]), arg);
        } while (cursor != "0");
    }
    size_t memory_bytes() override { return memory_in_use() - before_; }

private:
    struct FreeReply {
        void operator()(redisReply *reply) const { freeReplyObject(reply); }
    };
    using Reply = std::unique_ptr<redisReply, FreeReply>;

    pid_t start_server() {
        pid_t parent = getpid(), pid = fork();
        if (pid < 0) throw Failure("redis: fork");
        if (pid > 0) return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        std::string socket = path_ + "/socket", log = path_ + "/log";
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket.c_str(), "--save", "", "--appendonly",
               "no", "--dir", path_.c_str(), "--logfile", log.c_str(), nullptr);
        _exit(127);
    }
    bool connect() {
        context_ = redisConnectUnix((path_ + "/socket").c_str());
        if (context_ && !context_->err) return true;
        if (context_) redisFree(context_);
        context_ = nullptr;
        return false;
    }
    void send(std::vector<Bytes> words, const Bytes *more = nullptr, size_t n = 0) {
        words.insert(words.end(), more, more + n);
        std::vector<const char *> data;
        std::vector<size_t> sizes;
        for (Bytes word : words) {
            data.push_back(static_cast<const char *>(word.data));
            sizes.push_back(word.size);
        }
        redisAppendCommandArgv(context_, static_cast<int>(words.size()), data.data(), sizes.data());
    }
    Reply receive() {
        void *reply = nullptr;
        if (redisGetReply(context_, &reply) != REDIS_OK) throw Failure(std::string("redis: ") + context_->errstr);
        Reply owned(static_cast<redisReply *>(reply));
        if (owned->type == REDIS_REPLY_ERROR) throw Failure(std::string("redis: ") + owned->str);
        return owned;
    }
    Reply call(const std::vector<Bytes> &words) {
        send(words);
        return receive();
    }
    static Bytes bytes_of(const redisReply &reply) { return {reply.str, static_cast<size_t>(reply.len)}; }
    static size_t copied(const redisReply &reply, void *into, size_t capacity) {
        if (reply.type == REDIS_REPLY_NIL) return NONE;
        std::memcpy(into, reply.str, std::min(static_cast<size_t>(reply.len), capacity));
        return static_cast<size_t>(reply.len);
    }
    size_t memory_in_use() {
        Reply reply = call({{"INFO", 4}, {"memory", 6}});
        const char *field = std::strstr(reply->str, "used_memory:");
        return field ? std::stoull(field + std::strlen("used_memory:")) : 0;
    }

    std::string path_ = scratch_path("redis");
    pid_t server_ = 0;
    redisContext *context_ = nullptr;
    size_t before_ = 0;
};

}  // namespace

std::unique_ptr<System> make_redis() { return std::make_unique<Redis>(); }
