#include "together.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "clock.h"

namespace {

/// What the processes share; in a mapping of its own, which begins as zeros.
struct Board {
    std::atomic<unsigned> ready, go;
    double least_end;  // nobody ends before
    struct Place {
        alignas(64) double end;
        size_t done, done_before;
        Latencies times;
    } places[64];
};

[[noreturn]] void child(System &common, Board &board, unsigned p, const std::function<Part(unsigned)> &part_of, bool timed) {
    try {
        common.after_fork();
        Part part = part_of(p);
        const Script &script = part.script;
        System &system = part.own ? *part.own : common;
        Board::Place &place = board.places[p];
        size_t warm = std::min<size_t>(script.size() / 5, 50000);
        place.done_before = system.perform(script, 0, warm, nullptr).done;
        board.ready++;
        while (!board.go) sched_yield();
        Latencies *times = timed ? &place.times : nullptr;
        place.done = system.perform(script, warm, script.size(), times).done;
        while (now_ns() < board.least_end) place.done += system.perform(script, 0, script.size(), times).done;
        place.end = now_ns();
        if (part.own) part.own->destroy();
        common.before_exit();
        _exit(0);
    } catch (const std::exception &e) {
        fprintf(stderr, "bench: process %u: %s\n", p, e.what());
        board.ready++;
        _exit(1);
    }
}

}  // namespace

Together perform_together(System &system, unsigned processes, const std::function<Part(unsigned)> &part_of,
                          Latencies *times, double least_ns) {
    void *memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw Failure("bench: mmap");
    Board &board = *static_cast<Board *>(memory);
    std::vector<pid_t> children;
    for (unsigned p = 0; p < processes; p++) {
        pid_t pid = fork();
        children.push_back(pid);
        if (pid < 0) throw Failure("bench: fork");
        if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (pid == 0) child(system, board, p, part_of, times != nullptr);
    }
    while (board.ready < processes) usleep(500);
    double start = now_ns(), end = start;
    board.least_end = start + least_ns;
    board.go = 1;
    for (pid_t pid : children) {
        int status;
        if (waitpid(pid, &status, 0) < 0 || status != 0) throw Failure("bench: a process failed");
    }
    Together all;
    for (unsigned p = 0; p < processes; p++) {
        end = std::max(end, board.places[p].end);
        all.done += board.places[p].done;
        all.done_before += board.places[p].done_before;
        if (times) times->add(board.places[p].times);
    }
    all.ns = end - start;
    munmap(memory, sizeof(Board));
    return all;
}

Usage Usage::now() {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    auto ns = [](const timeval &t) { return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_usec) * 1e3; };
    return {now_ns(), static_cast<double>(usage.ru_minflt), ns(usage.ru_utime) + ns(usage.ru_stime)};
}

Waiter::Waiter(const std::function<Usage()> &work) {
    if (pipe2(go_, O_CLOEXEC) != 0 || pipe2(answer_, O_CLOEXEC) != 0) throw Failure("bench: pipe");
    pid_ = fork();
    if (pid_ < 0) throw Failure("bench: fork");
    if (pid_ > 0) return;
    close(go_[1]);
    char byte;
    if (read(go_[0], &byte, 1) != 1) _exit(0);
    try {
        Usage answer = work();
        _exit(write(answer_[1], &answer, sizeof answer) == sizeof answer ? 0 : 1);
    } catch (const std::exception &e) {
        fprintf(stderr, "bench: %s\n", e.what());
        _exit(1);
    }
}

Usage Waiter::run() {
    Usage answer = {};
    close(answer_[1]);
    answer_[1] = -1;
    if (write(go_[1], "g", 1) != 1 || read(answer_[0], &answer, sizeof answer) != sizeof answer) {
        throw Failure("bench: a process that opens the store failed");
    }
    return answer;
}

Waiter::~Waiter() {
    for (int fd : {go_[0], go_[1], answer_[0], answer_[1]}) {
        if (fd >= 0) close(fd);
    }
    waitpid(pid_, nullptr, 0);
}
