//! Numbers that are random and the same everywhere.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct Random(pub u64);

impl Random {
    /// A stream of its own for each name: tensors can be made in any order.
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a (Fowler, Noll and Vo).
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3u64)
        });
        Self(Self(seed).next() ^ hash)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// From 0 to below 1, of 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
    /// Nearly normal with this standard deviation: four uniform numbers.
    pub fn normal(&mut self, deviation: f32) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform() - 0.5).sum();
        sum * deviation * 1.732_050_8
    }
}
