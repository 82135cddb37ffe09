// A worker of the demo in C++. What all workers do is told at the top of drive.py.
//
//     worker_cpp NAME FILE_NAME MEM_NAME TEXT

#include <netshm.h>

#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

namespace {

// Lets the everyday answers pass, and makes an exception of the others.
int must(int code)
{
    if (code == NETSHM_OK || code == NETSHM_E_NOT_FOUND || code == NETSHM_E_CHANGED) return code;
    netshm_error details{};
    details.size = sizeof details;
    netshm_last_error(&details);
    throw std::runtime_error(details.code == code ? details.text : netshm_strerror(code));
}

struct Close {
    void operator()(netshm_object *object) const { netshm_close(object); }
    void operator()(netshm_hashtbl *table) const { netshm_hashtbl_close(table); }
};

// A hash table, with its object; both are closed when it goes out of scope.
class Table {
public:
    Table(const char *file_name, const char *mem_name)
    {
        netshm_object *object = nullptr;
        netshm_hashtbl *table = nullptr;
        if (must(netshm_open(NETSHM_POSIX, file_name, mem_name, NETSHM_RDWR, 0, &object)) != NETSHM_OK)
            throw std::runtime_error("there is no such object");
        object_.reset(object);
        must(netshm_hashtbl_manage(object, nullptr, nullptr, nullptr, &table));
        table_.reset(table);
    }

    // The text that is bound to a key; empty if there is none.
    std::string find(const std::string &key) const
    {
        char text[256];
        std::size_t len = 0;
        int code = must(netshm_hashtbl_find(table_.get(), key.data(), key.size(), text, sizeof text, &len));
        return code == NETSHM_OK ? std::string(text, len) : std::string();
    }

    // The integer that incr() counts; 0 if there is none.
    std::int64_t number(const std::string &key) const
    {
        std::uint64_t value = 0;
        std::string bytes = find(key);
        for (auto byte = bytes.rbegin(); byte != bytes.rend(); ++byte)
            value = value << 8 | static_cast<unsigned char>(*byte);
        return static_cast<std::int64_t>(value);
    }

    bool contains(const std::string &key) const
    {
        int found = 0;
        must(netshm_hashtbl_mem(table_.get(), key.data(), key.size(), &found));
        return found != 0;
    }

    void incr(const std::string &key, std::int64_t delta)
    {
        must(netshm_hashtbl_incr(table_.get(), key.data(), key.size(), delta, 0, nullptr));
    }

    // Tells whether there was a binding.
    bool remove(const std::string &key)
    {
        int was_there = 0;
        must(netshm_hashtbl_remove(table_.get(), key.data(), key.size(), &was_there));
        return was_there != 0;
    }

    // Tells whether the value was the old one, and is the new one now.
    bool compare_and_replace(const std::string &key, const std::string &old, const std::string &value)
    {
        return must(netshm_hashtbl_cas(table_.get(), key.data(), key.size(), old.data(), old.size(), value.data(),
                                       value.size())) == NETSHM_OK;
    }

    // Runs body() as a transaction, again if it has to give way. All is undone if it throws; the exception is
    // carried around the library, since it must not pass through.
    template <typename Body> void group(Body body)
    {
        struct Call {
            Body &body;
            std::exception_ptr failure;
        } call{body, nullptr};
        auto run = [](netshm_txn *, void *arg) noexcept -> int {
            auto &call = *static_cast<Call *>(arg);
            try {
                call.failure = nullptr;
                call.body();
                return NETSHM_COMMIT;
            } catch (...) {
                call.failure = std::current_exception();
                return NETSHM_E_CALLER;
            }
        };
        int code = netshm_group_retry(netshm_hashtbl_table(table_.get()), -1, run, &call);
        if (call.failure) std::rethrow_exception(call.failure);
        must(code);
    }

private:
    std::unique_ptr<netshm_object, Close> object_;
    std::unique_ptr<netshm_hashtbl, Close> table_;
};

using Words = std::map<std::string, std::int64_t>; // sorted: see "Order" in drive.py

Words count_words(const std::string &text)
{
    constexpr std::size_t word_bytes = 64;
    Words words;
    std::string word;
    for (std::size_t i = 0; i <= text.size(); ++i) {
        char c = i < text.size() ? text[i] : ' ';
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
        if (c >= 'a' && c <= 'z') {
            if (word.size() < word_bytes) word += c;
        } else if (!word.empty()) {
            ++words[word];
            word.clear();
        }
    }
    return words;
}

class Worker {
public:
    Worker(char **argv) : name_(argv[0]), table_(argv[1], argv[2]), text_(argv[3], std::ios::binary)
    {
        text_.exceptions(std::ios::failbit | std::ios::badbit | std::ios::eofbit);
    }

    void run()
    {
        table_.incr("ready:", 1);
        count_share(name_);
        while (!table_.contains("finished:")) {
            std::string share = table_.find("orphan:");
            if (!share.empty() && table_.compare_and_replace("owner:" + share, "", name_))
                count_share(share);
            else
                nap();
        }
    }

private:
    void nap() const
    {
        if (getppid() != driver_) throw std::runtime_error("the driver is gone");
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }

    void count_share(const std::string &share)
    {
        std::int64_t size = table_.number("size:" + share);
        for (std::int64_t i = 0; i < size; ++i) {
            while (table_.number("given:" + share) <= i) nap();
            std::string key = "chunk:" + share + ':' + std::to_string(i);
            std::istringstream chunk(table_.find(key));
            std::streamoff offset;
            std::size_t len;
            if (chunk >> offset >> len) count_chunk(share, key, offset, len);
        }
    }

    // Counts privately, then adds all to the table in one group, which also takes the chunk off the list.
    void count_chunk(const std::string &share, const std::string &key, std::streamoff offset, std::size_t len)
    {
        std::string bytes(len, '\0');
        text_.seekg(offset);
        text_.read(&bytes[0], static_cast<std::streamsize>(len));
        const Words words = count_words(bytes);
        table_.group([&] {
            if (!table_.remove(key)) return; // it has been counted
            std::int64_t total = 0;
            for (const auto &word : words) {
                table_.incr(word.first, word.second);
                total += word.second;
            }
            table_.incr("words:" + name_, total);
            table_.incr("increments:" + name_, static_cast<std::int64_t>(words.size()));
            table_.incr("done:" + share, 1);
        });
    }

    const std::string name_;
    Table table_;
    std::ifstream text_;
    const pid_t driver_ = getppid();
};

} // namespace

int main(int argc, char **argv)
try {
    if (argc != 5) throw std::runtime_error("usage: worker_cpp NAME FILE_NAME MEM_NAME TEXT");
    Worker(argv + 1).run();
    return 0;
} catch (const std::exception &e) {
    std::cerr << "worker.cpp: " << e.what() << '\n';
    return 1;
}
