//! Random numbers that are the same on every machine.

/// PCG-XSH-RR 64/32: O'Neill, PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
/// Random Number Generation, 2014, section 6.3.1.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// Any odd number picks a sequence; this is the paper's.
    const INCREMENT: u64 = 1_442_695_040_888_963_407;
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self { state: Self::INCREMENT.wrapping_add(seed) };
        random.next();
        random
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(Self::MULTIPLIER).wrapping_add(Self::INCREMENT);
        let folded = (((old >> 18) ^ old) >> 27) as u32; // the low half of what is left, as in the paper
        folded.rotate_right((old >> 59) as u32)
    }

    /// At least 0, less than 1: all 24 bits that an f32 can tell apart.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 16_777_216.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_numbers_are_the_papers() {
        // pcg32 with the sequence 721347520444481703 (half the increment) and seed 42, from its definition
        // computed apart from this code.
        let mut random = Random::new(42);
        assert_eq!([(); 4].map(|()| random.next()), [0xc2f57bd6, 0x6b07c4a9, 0x72b7b29b, 0x44215383]);
    }
}
