//! Numbers that GGUF gives to tensor types: name and block size of each, whether or not we can multiply it.
//!
//! Source: GGUF specification (ggml docs/gguf.md), `enum ggml_type`; block sizes from the block layouts of
//! the same project. What the engine can multiply is the shorter table `quant::FORMATS`.

/// A tensor type: how many weights share a block, and how many bytes the block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Number in the tensor directory.
    pub id: u32,
    /// As people write it.
    pub name: &'static str,
    /// Weights in a block.
    pub len: u32,
    /// Bytes in a block.
    pub bytes: u32,
}

const fn kind(id: u32, name: &'static str, len: u32, bytes: u32) -> Kind {
    Kind { id, name, len, bytes }
}

/// All types that a file may name, those that llama.cpp no longer reads (31 to 33, 36 to 38: rows of Q4_0 and IQ4_NL already
/// interleaved for one CPU) included. Numbers 4 and 5 were never in a GGUF file.
pub static KINDS: &[Kind] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(31, "Q4_0_4_4", 32, 18),
    kind(32, "Q4_0_4_8", 32, 18),
    kind(33, "Q4_0_8_8", 32, 18),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(36, "IQ4_NL_4_4", 32, 18),
    kind(37, "IQ4_NL_4_8", 32, 18),
    kind(38, "IQ4_NL_8_8", 32, 18),
    kind(39, "MXFP4", 32, 17),
    kind(40, "NVFP4", 64, 36),
    kind(41, "Q1_0", 128, 18),
    kind(42, "Q2_0", 64, 18),
];

/// The type with this number.
pub fn by_id(id: u32) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.id == id)
}

/// Its name, or "type N" for a number that no specification has.
pub struct Name(pub u32);

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match by_id(self.0) {
            Some(kind) => f.write_str(kind.name),
            None => write!(f, "type {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FORMATS;

    #[test]
    fn every_type_is_named_once_and_every_format_is_among_them() {
        for (index, kind) in KINDS.iter().enumerate() {
            let others = &KINDS[..index];
            assert!(others.iter().all(|other| other.id < kind.id && other.name != kind.name), "{kind:?}");
        }
        for format in FORMATS {
            let kind = by_id(format.id).expect("a format has a number that files use");
            let (len, bytes) = (kind.len as usize, kind.bytes as usize);
            assert_eq!((kind.name, len, bytes), (format.name, format.len, format.bytes));
        }
    }
}
