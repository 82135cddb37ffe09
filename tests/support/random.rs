//! Random numbers that a seed repeats (splitmix64).

/// A generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Seeded by `NETSHM_SEED`, or differently each time; says which.
    pub(crate) fn from_environment(test: &str) -> Random {
        Random(Random::seed(test))
    }

    /// The seed alone.
    pub(crate) fn seed(test: &str) -> u64 {
        let seed = super::setting("NETSHM_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |d| d.as_nanos() as u64 % 1_000_000_007)
        });
        println!("{test}: NETSHM_SEED={seed}");
        seed
    }

    /// The same with a seed of its own in the short form, for what searches rather than tests: there each run is the same.
    pub(crate) fn repeatable_seed(test: &str, seed: u64) -> u64 {
        let wanted = super::setting("NETSHM_SEED").or(super::setting("NETSHM_ROUNDS"));
        if super::long() || wanted.is_some() { Random::seed(test) } else { seed }
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// One of some things.
    pub(crate) fn one_of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
