// No table at all: a loop that waits for as long as a find takes. What its percentiles show is done by the machine.
#include "clock.h"
#include "system.h"

namespace {

class Control : public DirectSystem {
public:
    const char *name() const override { return "control"; }
    Traits traits() const override {
        Traits traits;
        traits.judged = false;
        traits.only_timed = true;
        traits.setup = "spins 200 ns on the clock instead of an operation";
        return traits;
    }
    void create(const Shape &, bool) override {}
    void destroy() override {}
    size_t find(Bytes, void *, size_t) override {
        spin();
        return 0;
    }
    void add(Bytes, Bytes) override { spin(); }
    void replace(Bytes, Bytes) override { spin(); }
    bool remove(Bytes) override {
        spin();
        return true;
    }
    int64_t count(Bytes, int64_t) override {
        spin();
        return 0;
    }
    void raise_together(const Bytes *, size_t, uint64_t) override { spin(); }
    void visit(Visitor, void *) override {}
    size_t memory_bytes() override { return 0; }

private:
    void spin() {
        uint64_t until = ticks() + spin_ticks_;
        while (ticks() < until) {}
    }
    uint64_t spin_ticks_ = static_cast<uint64_t>(200 / ns_per_tick());
};

}  // namespace

std::unique_ptr<System> make_control() { return std::make_unique<Control>(); }
