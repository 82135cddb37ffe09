#include "script.h"

#include <cmath>
#include <map>
#include <numeric>
#include <utility>

void Script::reserve(size_t n) {
    steps.reserve(n);
    numbers.reserve(n * width);
    keys.reserve(n * width * key_size);
}

void Script::push_key(uint64_t number) {
    numbers.push_back(number);
    keys.resize(keys.size() + key_size);
    make_key(keys.data() + keys.size() - key_size, key_size, number);
}

std::vector<uint32_t> shuffled(size_t n, uint64_t seed) {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    Random random(seed);
    for (size_t i = n; i > 1; i--) std::swap(order[i - 1], order[random.below(i)]);
    return order;
}

static constexpr double THETA = 0.99;

/// The sum of 1 / i^theta; remembered, since it takes long.
static double zeta(size_t n) {
    static std::map<size_t, double> known;
    auto [place, is_new] = known.try_emplace(n, 0);
    if (is_new) {
        for (size_t i = 1; i <= n; i++) place->second += std::pow(static_cast<double>(i), -THETA);
    }
    return place->second;
}

// After Gray et al., "Quickly generating billion-record synthetic databases", as YCSB does it.
Zipfian::Zipfian(size_t n) : n_(static_cast<double>(n)), zeta_(zeta(n)), second_(1 + std::pow(0.5, THETA)) {
    eta_ = (1 - std::pow(2 / n_, 1 - THETA)) / (1 - second_ / zeta_);
}

uint64_t Zipfian::rank(Random &random) const {
    double u = random.fraction(), scaled = u * zeta_;
    if (scaled < 1) return 0;
    if (scaled < second_) return 1;
    auto rank = static_cast<uint64_t>(n_ * std::pow(eta_ * u - eta_ + 1, 1 / (1 - THETA)));
    return rank < static_cast<uint64_t>(n_) ? rank : static_cast<uint64_t>(n_) - 1;
}

uint64_t Zipfian::number(Random &random) const { return Random(rank(random)).below(static_cast<uint64_t>(n_)); }

namespace {

/// Draws the keys of one process, and says what happens to them.
class Drawer {
public:
    Drawer(Mix mix, const Shape &shape, unsigned process, unsigned processes, uint64_t fresh)
        : mix_(mix), keys_(shape.keys), process_(process), processes_(processes), next_fresh_(fresh), first_fresh_(fresh),
          zipfian_(shape.keys), random_(process + 1u) {}

    void draw(Script &script) {
        switch (mix_.letter) {
        case 'A': return script.push(one_in(2) ? Step::replace : Step::find, any());
        case 'B': return script.push(one_in(20) ? Step::replace : Step::find, any());
        case 'C': return script.push(Step::find, any());
        case 'D': return one_in(20) ? script.push(Step::add, next_fresh_++) : script.push(Step::find, a_late_one());
        case 'F': return script.push(one_in(2) ? Step::update : Step::find, any());
        default: return one_in(2) ? script.push(Step::replace, own()) : script.push(Step::find, any());
        }
    }

private:
    bool one_in(unsigned n) { return random_.below(n) == 0; }
    uint64_t any() {
        return mix_.distribution == Distribution::zipfian ? zipfian_.number(random_) : random_.below(keys_);
    }
    uint64_t own() {
        uint64_t share = keys_ / processes_;
        return process_ * share + random_.below(share);
    }
    /// The latest are this process's own, then what was loaded, from the end.
    uint64_t a_late_one() {
        uint64_t back = zipfian_.rank(random_), inserted = next_fresh_ - first_fresh_;
        return back < inserted ? next_fresh_ - 1 - back : keys_ - 1 - (back - inserted) % keys_;
    }

    Mix mix_;
    uint64_t keys_;
    unsigned process_, processes_;
    uint64_t next_fresh_, first_fresh_;
    Zipfian zipfian_;
    Random random_;
};

}  // namespace

Script mixed_script(Mix mix, const Shape &shape, size_t operations, unsigned process, unsigned processes,
                    uint64_t fresh_numbers) {
    Script script(shape.key_size, shape.value_size);
    script.reserve(operations);
    script.version = 100 + process;
    script.delta = ONE_VERSION;
    Drawer drawer(mix, shape, process, processes, fresh_numbers);
    for (size_t i = 0; i < operations; i++) drawer.draw(script);
    return script;
}
