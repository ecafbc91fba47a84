//! IQ4_NL: 32 weights, each one of 16 values that lie closer near zero, and a scale. A weight is `scale × value`.
//!
//! Block, 18 bytes: scale (binary16), then 16 bytes whose low halves are weights 0–15 and whose high halves are weights 16–31.
//! Source: ggml block layouts (`block_iq4_nl`, `kvalues_iq4nl`).

use super::block32::{self, Block32, Unpacked, half};
use super::quads::Quads;
use alloc::vec::Vec;

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
#[cfg(target_arch = "aarch64")]
use core::arch::{aarch64::*, asm};

/// What the quants stand for.
pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The format.
pub struct Iq4Nl;

impl Quads for Iq4Nl {
    const NARROW: bool = false; // 2 × 127 × 127 = 32,258
    const ZERO: i32 = 0;
    const SIGNED: bool = true;
    const VALUES: bool = true;
}

impl Block32 for Iq4Nl {
    const ID: u32 = 20;
    const NAME: &'static str = "IQ4_NL";
    const BYTES: usize = 18;
    const MINIMUM: bool = false;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut quants = [0; 32];
        for (index, &byte) in block[2..18].iter().enumerate() {
            quants[index] = VALUES[usize::from(byte & 0xf)];
            quants[index + 16] = VALUES[usize::from(byte >> 4)];
        }
        Unpacked { quants, scale: half(block), minimum: 0.0 }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn quad(data: &mut super::quads::From) -> [int8x16_t; 8] {
        // SAFETY: the caller's promise: four vectors.
        unsafe { values(data) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn pairs(data: *const __m256i) -> [__m256i; 4] {
        // SAFETY: the caller's promise: 64 bytes.
        unsafe { values(data) }
    }

    fn quantize(weights: &[f32], row: &mut Vec<u8>) {
        for block in weights.chunks_exact(32) {
            let scale = block32::peak(block) / -127.0;
            row.extend(half::f16::from_f32(scale).to_le_bytes());
            pack(block, scale, row);
        }
    }
}

/// Writes the quants of 32 weights: whose values are nearest.
pub fn pack(weights: &[f32], scale: f32, row: &mut Vec<u8>) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let nearest = |weight: f32| {
        let off = |value: i8| (f32::from(value) - weight * inverse).abs();
        (1..16).fold(0, |best, i| if off(VALUES[i]) < off(VALUES[best]) { i } else { best }) as u8
    };
    row.extend((0..16).map(|i| nearest(weights[i]) | nearest(weights[i + 16]) << 4));
}

/// A quad of values.
///
/// # Safety
/// Four vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn values(data: &mut super::quads::From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise, and a table of 16 bytes; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let table = crate::simd::neon::load(VALUES.as_ptr().cast());
        super::quads::nibbles(data).map(|nibbles| vqtbl1q_s8(table, vreinterpretq_u8_s8(nibbles)))
    }
}

/// The sums of the next quad's products with a column, which [`super::quads::repeated`] has spread, without `sdot`.
///
/// The two vector pipes of a Cortex-A72 are what this waits for, and to LLVM's model of it a look-up of 16 bytes is three
/// operations, one of 8 bytes is one. So vectors are half as long here as elsewhere, two rows each; and half of the nibbles
/// (columns 8–15 and 24–31) are taken apart in general registers, whose pipes have nothing else to do. That leaves the vector
/// pipes 236 operations for 16 rows, or 118 cycles. The order makes up the rest: a step after the other it is 121 cycles; this
/// one, found by moving instructions about under llvm-mca, takes the 118.
///
/// # Safety
/// Four vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn dot_values_neon(data: &mut super::quads::From, x: [int8x16_t; 8]) -> float32x4_t {
    // SAFETY: 16 bytes. A constant, unlike what is loaded, stays in a register.
    let table: int8x16_t = unsafe { core::mem::transmute(VALUES) };
    let products;
    // SAFETY: the caller's promise; nothing else is read.
    unsafe {
        asm!(
            "ldp {r0}, {r1}, [{data}, #48]",
            "and {r2}, {bits}, {r1}, lsr #4",
            "ldp {r3}, {r4}, [{data}, #32]",
            "and {r5}, {r0}, #0x0f0f0f0f0f0f0f0f",
            "and {r6}, {r3}, #0x0f0f0f0f0f0f0f0f",
            "ld1 {{v16.8b-v19.8b}}, [{data}]",
            "and {v0:v}.8b, v16.8b, {mask:v}.8b",
            "and {r1}, {r1}, #0x0f0f0f0f0f0f0f0f",
            "tbl {v0:v}.8b, {{{table:v}.16b}}, {v0:v}.8b",
            "fmov {v1:d}, {r6}",
            "fmov {v2:d}, {r2}",
            "and {v3:v}.8b, v17.8b, {mask:v}.8b",
            "tbl {v1:v}.8b, {{{table:v}.16b}}, {v1:v}.8b",
            "ushr {v4:v}.8b, v18.8b, #4",
            "and {v5:v}.8b, v19.8b, {mask:v}.8b",
            "smull {v1:v}.8h, {v1:v}.8b, {x2:v}.8b",
            "tbl {v3:v}.8b, {{{table:v}.16b}}, {v3:v}.8b",
            "smull {v3:v}.8h, {v3:v}.8b, {x0:v}.8b",
            "and {r2}, {r4}, #0x0f0f0f0f0f0f0f0f",
            "fmov {v6:d}, {r5}",
            "ushr {v7:v}.8b, v17.8b, #4",
            "and {v8:v}.8b, v18.8b, {mask:v}.8b",
            "fmov {v9:d}, {r2}",
            "tbl {v5:v}.8b, {{{table:v}.16b}}, {v5:v}.8b",
            "tbl {v7:v}.8b, {{{table:v}.16b}}, {v7:v}.8b",
            "smlal {v3:v}.8h, {v5:v}.8b, {x1:v}.8b",
            "tbl {v6:v}.8b, {{{table:v}.16b}}, {v6:v}.8b",
            "smlal {v1:v}.8h, {v6:v}.8b, {x3:v}.8b",
            "smull {v0:v}.8h, {v0:v}.8b, {x0:v}.8b",
            "ushr {v6:v}.8b, v16.8b, #4",
            "and {r2}, {bits}, {r3}, lsr #4",
            "and {r5}, {bits}, {r0}, lsr #4",
            "tbl {v6:v}.8b, {{{table:v}.16b}}, {v6:v}.8b",
            "tbl {v8:v}.8b, {{{table:v}.16b}}, {v8:v}.8b",
            "smlal {v0:v}.8h, {v8:v}.8b, {x1:v}.8b",
            "tbl {v9:v}.8b, {{{table:v}.16b}}, {v9:v}.8b",
            "tbl {v4:v}.8b, {{{table:v}.16b}}, {v4:v}.8b",
            "fmov {v8:d}, {r1}",
            "smull {v9:v}.8h, {v9:v}.8b, {x2:v}.8b",
            "and {r4}, {bits}, {r4}, lsr #4",
            "fmov {v5:d}, {r2}",
            "saddlp {v0:v}.4s, {v0:v}.8h",
            "tbl {v8:v}.8b, {{{table:v}.16b}}, {v8:v}.8b",
            "smull {v6:v}.8h, {v6:v}.8b, {x4:v}.8b",
            "smlal {v9:v}.8h, {v8:v}.8b, {x3:v}.8b",
            "smlal {v6:v}.8h, {v4:v}.8b, {x5:v}.8b",
            "smull {v7:v}.8h, {v7:v}.8b, {x4:v}.8b",
            "fmov {v4:d}, {r5}",
            "tbl {v5:v}.8b, {{{table:v}.16b}}, {v5:v}.8b",
            "tbl {v4:v}.8b, {{{table:v}.16b}}, {v4:v}.8b",
            "ushr {v8:v}.8b, v19.8b, #4",
            "saddlp {v3:v}.4s, {v3:v}.8h",
            "smull {v5:v}.8h, {v5:v}.8b, {x6:v}.8b",
            "tbl {v8:v}.8b, {{{table:v}.16b}}, {v8:v}.8b",
            "sadalp {v0:v}.4s, {v1:v}.8h",
            "tbl {v2:v}.8b, {{{table:v}.16b}}, {v2:v}.8b",
            "fmov {v1:d}, {r4}",
            "tbl {v1:v}.8b, {{{table:v}.16b}}, {v1:v}.8b",
            "smlal {v7:v}.8h, {v8:v}.8b, {x5:v}.8b",
            "sadalp {v3:v}.4s, {v9:v}.8h",
            "sadalp {v0:v}.4s, {v6:v}.8h",
            "smull {v1:v}.8h, {v1:v}.8b, {x6:v}.8b",
            "sadalp {v3:v}.4s, {v7:v}.8h",
            "smlal {v5:v}.8h, {v4:v}.8b, {x7:v}.8b",
            "add {data}, {data}, #64",
            "smlal {v1:v}.8h, {v2:v}.8b, {x7:v}.8b",
            "sadalp {v3:v}.4s, {v1:v}.8h",
            "sadalp {v0:v}.4s, {v5:v}.8h",
            "addp {v3:v}.4s, {v0:v}.4s, {v3:v}.4s",
            "scvtf {v3:v}.4s, {v3:v}.4s",
            data = inout(reg) *data, table = in(vreg) table,
            mask = in(vreg) vdup_n_u8(0xf), bits = in(reg) 0x0f0f_0f0f_0f0f_0f0f_u64,
            x0 = in(vreg) x[0], x1 = in(vreg) x[1], x2 = in(vreg) x[2], x3 = in(vreg) x[3],
            x4 = in(vreg) x[4], x5 = in(vreg) x[5], x6 = in(vreg) x[6], x7 = in(vreg) x[7],
            r0 = out(reg) _, r1 = out(reg) _, r2 = out(reg) _, r3 = out(reg) _,
            r4 = out(reg) _, r5 = out(reg) _, r6 = out(reg) _,
            v0 = out(vreg) _, v1 = out(vreg) _, v2 = out(vreg) _, v3 = out(vreg) products, v4 = out(vreg) _,
            v5 = out(vreg) _, v6 = out(vreg) _, v7 = out(vreg) _, v8 = out(vreg) _, v9 = out(vreg) _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    products
}

/// The same for a PC.
///
/// # Safety
/// 64 bytes must be readable at `data`, and the CPU have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn values(data: *const __m256i) -> [__m256i; 4] {
    // SAFETY: the caller's promise, and a table of 16 bytes.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(VALUES.as_ptr().cast()));
        let [a, b, c, d] = block32::avx2::nibbles(data);
        // Written out: in a closure, which has no target features, each of these would be a call.
        [
            _mm256_shuffle_epi8(table, a),
            _mm256_shuffle_epi8(table, b),
            _mm256_shuffle_epi8(table, c),
            _mm256_shuffle_epi8(table, d),
        ]
    }
}
