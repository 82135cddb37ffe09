// The reference, Ocamlnet's Netshm. Its table is used by a program in OCaml, one for each process, which gets whole
// scripts and times them itself: see ocamlnet.ml.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <csignal>
#include <cstdio>

#include "system.h"

namespace {

class Ocamlnet : public System {
public:
    const char *name() const override { return "ocamlnet"; }
    Traits traits() const override {
        Traits traits;
        traits.presizes = true;
        traits.most_keys = traits.most_operations = 20000;
        traits.most_writes_together = 2000;
        traits.most_bytes = 8 << 20;  // it copies values word by word
        traits.batches = traits.timed = false;
        traits.setup = "Netshm_hashtbl of strings from OCaml, record locking, a file in /dev/shm; at most 20000 keys";
        return traits;
    }

    void create(const Shape &shape, bool presized) override {
        start_program();
        ask("create " + file_ + " " + std::to_string(presized ? shape.keys : 0));
    }
    void open_existing(const Shape &) override {
        start_program();
        ask("open " + file_);
    }
    void after_fork() override {
        fclose(to_);
        fclose(from_);
        open_existing({});
    }
    void before_exit() override { end_program(); }
    void destroy() override {
        end_program();
        unlink(file_.c_str());
    }

    Outcome perform(const Script &script, size_t from, size_t to, Latencies *) override {
        bool alone = from == 0 && to == script.size();
        std::string range = std::to_string(from) + " " + std::to_string(to) + (alone ? " 60" : " 0.5");
        if (from > 0) return ask("go-on " + range);
        std::string file = file_ + "-script-" + std::to_string(getpid());
        write_script(script, file);
        Outcome outcome = ask("run " + file + " " + range);
        unlink(file.c_str());
        return outcome;
    }
    Outcome iterate(bool) override { return ask("iterate"); }
    size_t memory_bytes() override { return disk_usage(file_); }

private:
    void start_program() {
        int down[2], up[2];
        if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0) throw Failure("ocamlnet: pipe");
        program_ = fork();
        if (program_ < 0) throw Failure("ocamlnet: fork");
        if (program_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            dup2(down[0], 0);
            dup2(up[1], 1);
            execl(OCAMLNET_PROGRAM, OCAMLNET_PROGRAM, nullptr);
            _exit(127);
        }
        close(down[0]);
        close(up[1]);
        to_ = fdopen(down[1], "w");
        from_ = fdopen(up[0], "r");
    }
    void end_program() {
        fclose(to_);
        waitpid(program_, nullptr, 0);
        fclose(from_);
    }
    Outcome ask(const std::string &command) {
        fprintf(to_, "%s\n", command.c_str());
        fflush(to_);
        char line[512] = "";
        Outcome outcome;
        if (!fgets(line, sizeof line, from_) ||
            sscanf(line, "%lf %zu %" SCNu64, &outcome.ns, &outcome.done, &outcome.sum) != 3) {
            throw Failure("ocamlnet: " + command + ": " + line);
        }
        return outcome;
    }
    static void write_script(const Script &script, const std::string &name) {
        FILE *file = fopen(name.c_str(), "w");
        if (!file) throw Failure("ocamlnet: cannot write " + name);
        fprintf(file, "%zu %zu %zu %zu %" PRIu64 " %d %" PRId64 "\n", script.size(), script.width, script.key_size,
                script.value_size, script.version, script.exact, static_cast<int64_t>(script.delta));
        fwrite(script.steps.data(), 1, script.steps.size(), file);
        fwrite(script.numbers.data(), 8, script.numbers.size(), file);
        fwrite(script.keys.data(), 1, script.keys.size(), file);
        if (fclose(file) != 0) throw Failure("ocamlnet: cannot write " + name);
    }

    std::string file_ = scratch_path("ocamlnet");
    pid_t program_ = 0;
    FILE *to_ = nullptr, *from_ = nullptr;
};

}  // namespace

std::unique_ptr<System> make_ocamlnet() { return std::make_unique<Ocamlnet>(); }
