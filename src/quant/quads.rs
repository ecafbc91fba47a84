//! Quads: the quants of four rows × 32 columns, times one column or several. What all tile kernels have in common.
//!
//! A vector is the same four columns of four rows, so a vector times one column's same four activations, repeated four times,
//! has a row in each quarter: lanes are rows, and nothing is summed across a whole register. A quad is eight such vectors.
//!
//! * Cortex-A76: `sdot` by element takes four activations of a register as they are.
//! * Cortex-A72: `dup` repeats them; `smull` and `smlal` sum eight products of weights of up to 5 bits in 16-bit lanes, and two
//!   such sums still fit (16 × 15 × 127 = 30,480 unsigned, 16 × 16 × 127 = 32,512 signed); of 8-bit weights two products do
//!   (2 × 128 × 127 = 32,512).

#[cfg(target_arch = "aarch64")]
use crate::simd::neon;
#[cfg(target_arch = "aarch64")]
use core::arch::{aarch64::*, asm};

/// What a kernel has to know of the quants that it multiplies.
pub trait Quads {
    /// Whether 16 products of a quant and an activation fit in 16 bits (else two do).
    const NARROW: bool;
    /// What is to be taken off each quant.
    const ZERO: i32;
    /// Whether a quant can be negative before [`Self::ZERO`] is taken off.
    const SIGNED: bool;
    /// For `sdot`, by how many bits quants are shifted left: 0, or 2 for those of six bits, 3 for those of five and 5 for those of three, which then
    /// cost a mask where they would a shift. The conversion of their sum takes it off again.
    const FRACTION: i32 = 0;
    /// The same for the last 16 quants of 32, where those have a factor of their own and there is one column.
    const LAST_FRACTION: i32 = Self::FRACTION;
    /// What is to be taken off those last quants, and nowhere else.
    const LAST_ZERO: i32 = 0;
    /// Whether quants are the values that [`super::iq4_nl`] has for nibbles.
    const VALUES: bool = false;
}

/// Where vectors of a tile are taken from: behind each of them once it was taken.
#[cfg(target_arch = "aarch64")]
pub type From = *const int8x16_t;

/// The next vector.
///
/// # Safety
/// It must be readable; any alignment will do.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn next(from: &mut From) -> int8x16_t {
    let vector;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {0:q}, [{1}], #16", out(vreg) vector, inout(reg) *from, options(pure, readonly, nostack, preserves_flags));
    }
    vector
}

/// The next four vectors by one instruction, which the intrinsic of that name is not where alignment is strict.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn four(from: &mut From) -> [int8x16_t; 4] {
    let (a, b, c, d): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
    // SAFETY: the caller's promise: 64 bytes.
    unsafe {
        asm!("ld1 {{v16.16b-v19.16b}}, [{}], #64", inout(reg) *from, out("v16") a, out("v17") b, out("v18") c, out("v19") d,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// The next two.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn two(from: &mut From) -> [int8x16_t; 2] {
    let (a, b): (int8x16_t, int8x16_t);
    // SAFETY: the caller's promise: 32 bytes.
    unsafe {
        asm!("ldp {0:q}, {1:q}, [{2}], #32", out(vreg) a, out(vreg) b, inout(reg) *from,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b]
}

/// The next three.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn three(from: &mut From) -> [int8x16_t; 3] {
    let (a, b, c): (int8x16_t, int8x16_t, int8x16_t);
    // SAFETY: the caller's promise: 48 bytes.
    unsafe {
        asm!("ld1 {{v16.16b-v18.16b}}, [{}], #48", inout(reg) *from, out("v16") a, out("v17") b, out("v18") c,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b, c]
}

/// Vector `I` of quad `QUAD` (of `WORDS` vectors each) of a part, which `middle` points into: to where quad 2 begins. Such a load
/// is one operation to the Cortex-A76: a counted address makes two of it, and so does an offset beyond 255 or below −256.
///
/// # Safety
/// It must be readable; any alignment will do.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn near<const QUAD: i32, const WORDS: i32, const I: i32>(middle: From) -> int8x16_t {
    let vector;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldur {0:q}, [{1}, #{2}]", out(vreg) vector, in(reg) middle, const 16 * ((QUAD - 2) * WORDS + I),
            options(pure, readonly, nostack, preserves_flags));
    }
    vector
}

/// A quad of nibbles: the low ones of a word are columns 0 to 15 of a block, the high ones 16 to 31.
///
/// # Safety
/// Four vectors must be readable at `data`, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn nibbles(data: &mut From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe { halves(four(data)) }
}

/// Low halves of bytes, then high ones.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn halves(bytes: [int8x16_t; 4]) -> [int8x16_t; 8] {
    // SAFETY: registers only; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let bytes = bytes.map(|bytes| vreinterpretq_u8_s8(bytes));
        let low = |i: usize| vreinterpretq_s8_u8(vandq_u8(bytes[i], vdupq_n_u8(0xf)));
        let high = |i: usize| vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes[i]));
        [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
    }
}

/// A quad of bytes.
///
/// # Safety
/// Eight vectors must be readable at `data`.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn bytes(data: &mut From) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise; Advanced SIMD is part of every AArch64 target of this project.
    unsafe {
        let ([a, b, c, d], [e, f, g, h]) = (four(data), four(data));
        [a, b, c, d, e, f, g, h]
    }
}

/// The next five vectors.
///
/// # Safety
/// They must be readable, at any alignment.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn five(from: &mut From) -> [int8x16_t; 5] {
    // SAFETY: the caller's promise.
    unsafe {
        let ([a, b, c, d], e) = (four(from), next(from));
        [a, b, c, d, e]
    }
}

/// The address, once `total` is known as far as the compiler can tell: it would load what is there earlier than there are
/// registers for it. The CPU itself waits for nothing.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn then(mut address: From, total: &mut float32x4_t) -> From {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("// {0}, {1:v}", inout(reg) address, inout(vreg) *total, options(pure, readonly, nostack, preserves_flags));
    }
    address
}

/// 1.5 × 2²³. Integers below 2²² in magnitude, summed on top of its bits, give the bits of the float that is so much
/// larger; taking it off again is exact, and costs the Cortex-A76 half of what a conversion does. With a number `fraction`
/// bits smaller, the integers count as so many bits less.
#[cfg(target_arch = "aarch64")]
pub(super) const fn round(fraction: i32) -> f32 {
    12_582_912.0 / (1 << fraction) as f32
}

/// A column's quants as they are.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) unsafe fn pair(x: *const int8x16_t) -> (int8x16_t, int8x16_t) {
    // SAFETY: the caller's promise: 32 quants, which `Inputs` keeps aligned.
    unsafe { (x.read(), x.add(1).read()) }
}

/// A column's quants, each four of them repeated four times.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn repeated(x: *const int8x16_t) -> [int8x16_t; 8] {
    // SAFETY: the caller's promise.
    let (low, high) = unsafe { pair(x) };
    let (low, high) = (vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high));
    [
        vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(low)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(low)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(low)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(low)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(high)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(high)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(high)),
        vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(high)),
    ]
}

/// Long multiplications, as instructions that LLVM does not take apart again: it likes to widen what it knows to be
/// positive and to multiply 16-bit lanes: 108 instructions where 71 do.
#[cfg(target_arch = "aarch64")]
macro_rules! long {
    ($($name:ident = $instruction:literal, $arrangement:literal;)+) => {$(
        #[inline(always)]
        pub(super) fn $name(mut sum: int16x8_t, w: int8x16_t, x: int8x16_t) -> int16x8_t {
            // SAFETY: registers only.
            unsafe {
                asm!(concat!($instruction, " {0:v}.8h, {1:v}.", $arrangement, ", {2:v}.", $arrangement),
                    inout(vreg) sum, in(vreg) w, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
            }
            sum
        }
    )+};
}

#[cfg(target_arch = "aarch64")]
long! {
    smlal = "smlal", "8b";
    smlal2 = "smlal2", "16b";
}

/// The first of a chain.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn smull(w: int8x16_t, x: int8x16_t) -> (int16x8_t, int16x8_t) {
    let (low, high);
    // SAFETY: registers only.
    unsafe {
        asm!("smull {0:v}.8h, {2:v}.8b, {3:v}.8b", "smull2 {1:v}.8h, {2:v}.16b, {3:v}.16b",
            out(vreg) low, lateout(vreg) high, in(vreg) w, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    (low, high)
}

/// Sums of neighbouring lanes, as an instruction that LLVM does not take apart either.
#[cfg(target_arch = "aarch64")]
macro_rules! pairs {
    ($($name:ident: $type:ty = $arrangement:literal;)+) => {$(
        #[inline(always)]
        pub(super) fn $name(mut low: $type, high: $type) -> $type {
            // SAFETY: registers only.
            unsafe {
                asm!(concat!("addp {0:v}.", $arrangement, ", {0:v}.", $arrangement, ", {1:v}.", $arrangement),
                    inout(vreg) low, in(vreg) high, options(pure, nomem, nostack, preserves_flags));
            }
            low
        }
    )+};
}

#[cfg(target_arch = "aarch64")]
pairs! {
    addp_16: int16x8_t = "8h";
    addp_32: int32x4_t = "4s";
}

/// Rows 0 and 1 are in the low halves, 2 and 3 in the high ones: two chains of products, summed to a row a lane.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_neon<F: Quads>(w: &[int8x16_t; 8], x: [int8x16_t; 8], zero: int32x4_t) -> float32x4_t {
    let first = |i: usize| smull(w[i], x[i]);
    let more = |(low, high), i: usize| (smlal(low, w[i], x[i]), smlal2(high, w[i], x[i]));
    let sums = if F::NARROW {
        let (low, high) = more(more(more(more(more(more(more(first(0), 1), 2), 3), 4), 5), 6), 7);
        let sums = addp_16(low, high);
        if F::ZERO == 0 { vpaddlq_s16(sums) } else { vpadalq_s16(zero, sums) }
    } else {
        let add = |(low, high), (l, h)| (vpadalq_s16(low, l), vpadalq_s16(high, h));
        let sums = more(first(0), 1);
        let sums = (vpaddlq_s16(sums.0), vpaddlq_s16(sums.1));
        let (low, high) = add(add(add(sums, more(first(2), 3)), more(first(4), 5)), more(first(6), 7));
        addp_32(low, high)
    };
    vcvtq_f32_s32(sums)
}

/// Eight `sdot` by element, of quants shifted by [`Quads::FRACTION`]; so is `zero`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_dotprod<F: Quads>(
    w: &[int8x16_t; 8],
    (low, high): (int8x16_t, int8x16_t),
    zero: int32x4_t,
) -> float32x4_t {
    let sum = vaddq_s32(zero, vreinterpretq_s32_f32(vdupq_n_f32(const { round(F::FRACTION) })));
    let sum = neon::sdot_lane::<0>(sum, w[0], low);
    let sum = neon::sdot_lane::<1>(sum, w[1], low);
    let sum = neon::sdot_lane::<2>(sum, w[2], low);
    let sum = neon::sdot_lane::<3>(sum, w[3], low);
    let sum = neon::sdot_lane::<0>(sum, w[4], high);
    let sum = neon::sdot_lane::<1>(sum, w[5], high);
    let sum = neon::sdot_lane::<2>(sum, w[6], high);
    let sum = neon::sdot_lane::<3>(sum, w[7], high);
    vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(const { round(F::FRACTION) }))
}

/// `total + (quad · column) × (scale × scales[LANE])`, where the column's quants are `AT` bytes behind `x` and lane `LANE` of
/// `zeros` is added to the integers, both shifted by [`Quads::FRACTION`]. In one piece, because 16 totals, eight vectors of weights, two of scales and what is in
/// between leave the compiler no register to be clever with.
///
/// # Safety
/// 32 quants must be readable there.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn column_dotprod<F: Quads, const AT: usize, const LANE: usize>(
    mut total: float32x4_t,
    w: &[int8x16_t; 8],
    x: *const i8,
    scale: float32x4_t,
    scales: float32x4_t,
    zeros: int32x4_t,
) -> float32x4_t {
    macro_rules! column {
        ($begin:literal, $fraction:literal $(, $zeros:ident = $value:expr)?) => {
            asm!(
                "ldp {low:q}, {high:q}, [{x}, #{at}]",
                $begin,
                "sdot {sum:v}.4s, {w0:v}.16b, {low:v}.4b[0]",
                "sdot {sum:v}.4s, {w1:v}.16b, {low:v}.4b[1]",
                "sdot {sum:v}.4s, {w2:v}.16b, {low:v}.4b[2]",
                "sdot {sum:v}.4s, {w3:v}.16b, {low:v}.4b[3]",
                "sdot {sum:v}.4s, {w4:v}.16b, {high:v}.4b[0]",
                "sdot {sum:v}.4s, {w5:v}.16b, {high:v}.4b[1]",
                "sdot {sum:v}.4s, {w6:v}.16b, {high:v}.4b[2]",
                "sdot {sum:v}.4s, {w7:v}.16b, {high:v}.4b[3]",
                "fmul {low:v}.4s, {scale:v}.4s, {scales:v}.s[{lane}]",
                concat!("scvtf {sum:v}.4s, {sum:v}.4s", $fraction),
                "fmla {total:v}.4s, {sum:v}.4s, {low:v}.4s",
                total = inout(vreg) total, sum = out(vreg) _, low = out(vreg) _, high = out(vreg) _, x = in(reg) x,
                w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                scale = in(vreg) scale, scales = in(vreg) scales, $($zeros = in(vreg) $value,)?
                at = const AT, lane = const LANE,
                options(pure, readonly, nostack, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match (F::ZERO, F::FRACTION) {
            // Copied from a general register, which takes neither of the Cortex-A76's pipes that multiply.
            (0, 0) => column!("dup {sum:v}.4s, wzr", ""),
            (0, 3) => column!("dup {sum:v}.4s, wzr", ", #3"),
            (_, 0) => column!("dup {sum:v}.4s, {zeros:v}.s[{lane}]", "", zeros = zeros),
            (_, 3) => column!("dup {sum:v}.4s, {zeros:v}.s[{lane}]", ", #3", zeros = zeros),
            _ => const { assert!(matches!(F::FRACTION, 0 | 2 | 3 | 5)) },
        }
    }
    total
}

/// The text of a step: four activations, repeated, times a vector of weights.
#[cfg(target_arch = "aarch64")]
macro_rules! step {
    ($low:literal, $high:literal, $w:literal, $lane:literal) => {
        concat!(
            "dup {t:v}.4s, {x:v}.s[",
            $lane,
            "]\n",
            $low,
            " {low:v}.8h, {",
            $w,
            ":v}.8b, {t:v}.8b\n",
            $high,
            " {high:v}.8h, {",
            $w,
            ":v}.16b, {t:v}.16b"
        )
    };
}

/// The same without `sdot`.
///
/// # Safety
/// 32 quants must be readable `AT` bytes behind `x`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn column_neon<F: Quads, const AT: usize, const LANE: usize>(
    mut total: float32x4_t,
    w: &[int8x16_t; 8],
    x: *const i8,
    scale: float32x4_t,
    scales: float32x4_t,
    zeros: int32x4_t,
) -> float32x4_t {
    macro_rules! column {
        ([$($text:expr),+] $($operands:tt)*) => {
            asm!(
                $($text,)+
                "fmul {t:v}.4s, {scale:v}.4s, {scales:v}.s[{lane}]",
                "scvtf {low:v}.4s, {low:v}.4s",
                "fmla {total:v}.4s, {low:v}.4s, {t:v}.4s",
                total = inout(vreg) total, low = out(vreg) _, high = out(vreg) _, x = out(vreg) _, t = out(vreg) _,
                w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
                p = in(reg) x, scale = in(vreg) scale, scales = in(vreg) scales, $($operands)*
                at = const AT, behind = const AT + 16, lane = const LANE,
                options(pure, readonly, nostack, preserves_flags)
            )
        };
    }
    const { assert!(F::NARROW || F::ZERO == 0, "8-bit weights are signed as they are") };
    // SAFETY: the caller's promise.
    unsafe {
        if !F::NARROW {
            column!([
                "ldr {x:q}, [{p}, #{at}]",
                step!("smull", "smull2", "w0", 0), step!("smlal", "smlal2", "w1", 1),
                "saddlp {a:v}.4s, {low:v}.8h", "saddlp {b:v}.4s, {high:v}.8h",
                step!("smull", "smull2", "w2", 2), step!("smlal", "smlal2", "w3", 3),
                "sadalp {a:v}.4s, {low:v}.8h", "sadalp {b:v}.4s, {high:v}.8h",
                "ldr {x:q}, [{p}, #{behind}]",
                step!("smull", "smull2", "w4", 0), step!("smlal", "smlal2", "w5", 1),
                "sadalp {a:v}.4s, {low:v}.8h", "sadalp {b:v}.4s, {high:v}.8h",
                step!("smull", "smull2", "w6", 2), step!("smlal", "smlal2", "w7", 3),
                "sadalp {a:v}.4s, {low:v}.8h", "sadalp {b:v}.4s, {high:v}.8h",
                "addp {low:v}.4s, {a:v}.4s, {b:v}.4s"
            ] a = out(vreg) _, b = out(vreg) _,);
        } else if F::ZERO == 0 {
            column!([
                "ldr {x:q}, [{p}, #{at}]",
                step!("smull", "smull2", "w0", 0),
                step!("smlal", "smlal2", "w1", 1),
                step!("smlal", "smlal2", "w2", 2),
                step!("smlal", "smlal2", "w3", 3),
                "ldr {x:q}, [{p}, #{behind}]",
                step!("smlal", "smlal2", "w4", 0),
                step!("smlal", "smlal2", "w5", 1),
                step!("smlal", "smlal2", "w6", 2),
                step!("smlal", "smlal2", "w7", 3),
                "addp {low:v}.8h, {low:v}.8h, {high:v}.8h",
                "saddlp {low:v}.4s, {low:v}.8h"
            ]);
        } else {
            column!([
                "ldr {x:q}, [{p}, #{at}]",
                step!("smull", "smull2", "w0", 0), step!("smlal", "smlal2", "w1", 1),
                step!("smlal", "smlal2", "w2", 2), step!("smlal", "smlal2", "w3", 3),
                "ldr {x:q}, [{p}, #{behind}]",
                step!("smlal", "smlal2", "w4", 0), step!("smlal", "smlal2", "w5", 1),
                step!("smlal", "smlal2", "w6", 2), step!("smlal", "smlal2", "w7", 3),
                "addp {high:v}.8h, {low:v}.8h, {high:v}.8h",
                "dup {low:v}.4s, {zeros:v}.s[{lane}]", "sadalp {low:v}.4s, {high:v}.8h"
            ] zeros = in(vreg) zeros,);
        }
    }
    total
}

/// As [`dot_neon`], with a factor of each row for the first 16 columns and one for the last.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_sixteens_neon(
    w: &[int8x16_t; 8],
    x: [int8x16_t; 8],
    factors: [int32x4_t; 2],
) -> float32x4_t {
    let more = |(low, high), i: usize| (smlal(low, w[i], x[i]), smlal2(high, w[i], x[i]));
    let four = |i: usize| {
        let (low, high) = more(more(more(smull(w[i], x[i]), i + 1), i + 2), i + 3);
        vpaddlq_s16(addp_16(low, high))
    };
    vcvtq_f32_s32(vmlaq_s32(vmulq_s32(four(0), factors[0]), four(4), factors[1]))
}

/// The first `sdot` of a sum that begins with `bits` in each lane. They are copied from a general register each time, which has
/// a pipe of its own; what the compiler copies from a vector has to share those of the products.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_first(bits: u32, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let sum;
    // SAFETY: registers only.
    unsafe {
        asm!("dup {0:v}.4s, {1:w}", "sdot {0:v}.4s, {2:v}.16b, {3:v}.4b[0]",
            out(vreg) sum, in(reg) bits, in(vreg) w, in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// What sums with a [`round`] in them are larger by.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn rounded(sum: int32x4_t, fraction: i32) -> float32x4_t {
    vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(round(fraction)))
}

/// As [`dot_dotprod`], for one of 16 rows × 1 column: `zero` is the same in all rows.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_one<F: Quads>(
    w: &[int8x16_t; 8],
    (low, high): (int8x16_t, int8x16_t),
    zero: i32,
) -> float32x4_t {
    let bits = const { round(F::FRACTION).to_bits() }.wrapping_add_signed(zero);
    let sum = sdot_first(bits, w[0], low);
    let sum = neon::sdot_lane::<1>(sum, w[1], low);
    let sum = neon::sdot_lane::<2>(sum, w[2], low);
    let sum = neon::sdot_lane::<3>(sum, w[3], low);
    let sum = neon::sdot_lane::<0>(sum, w[4], high);
    let sum = neon::sdot_lane::<1>(sum, w[5], high);
    let sum = neon::sdot_lane::<2>(sum, w[6], high);
    rounded(neon::sdot_lane::<3>(sum, w[7], high), F::FRACTION)
}

/// As [`column_sixteens_dotprod`], for 16 rows × 1 column: the two sums times their factors. The last one
/// begins with `zero`, see [`last_zero`].
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_sixteens_one<F: Quads>(
    w: &[int8x16_t; 8],
    (low, high): (int8x16_t, int8x16_t),
    factors: [float32x4_t; 2],
    zero: i32,
) -> float32x4_t {
    let sum = sdot_first(const { round(F::FRACTION).to_bits() }, w[0], low);
    let sum = neon::sdot_lane::<1>(sum, w[1], low);
    let sum = neon::sdot_lane::<2>(sum, w[2], low);
    let first = neon::sdot_lane::<3>(sum, w[3], low);
    let bits = const { round(F::LAST_FRACTION).to_bits() }.wrapping_add_signed(zero);
    let sum = sdot_first(bits, w[4], high);
    let sum = neon::sdot_lane::<1>(sum, w[5], high);
    let sum = neon::sdot_lane::<2>(sum, w[6], high);
    let last = neon::sdot_lane::<3>(sum, w[7], high);
    let first = vmulq_f32(rounded(first, F::FRACTION), factors[0]);
    vfmaq_f32(first, rounded(last, F::LAST_FRACTION), factors[1])
}

/// What the sum of a column's last 16 quants times those of a format begins with: so much is taken off each of the latter.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn last_zero<F: Quads>(last: int8x16_t) -> i32 {
    if F::LAST_ZERO == 0 { 0 } else { -(F::LAST_ZERO << F::LAST_FRACTION) * i32::from(vaddlvq_s8(last)) }
}

/// As [`dot_sixteens_one`] for quants of two bits, the last eight columns' 16 times as large and those of the eight before 4 times.
/// Sums of 16 fit in 16 bits, so do the factors: those of the first 16 columns, 4 times as large, before those of the last.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot_two_bits_one(
    w: &[int8x16_t; 8],
    (low, high): (int8x16_t, int8x16_t),
    factors: int16x8_t,
) -> float32x4_t {
    let sum = sdot_first(0, w[0], low);
    let sum = neon::sdot_lane::<1>(sum, w[1], low);
    let sum = neon::sdot_lane::<2>(sum, w[2], low);
    let first = neon::sdot_lane::<3>(sum, w[3], low);
    let fours = neon::sdot_lane::<1>(sdot_first(0, w[4], high), w[5], high);
    let (sixteens, sum): (int32x4_t, int32x4_t);
    // SAFETY: registers only.
    unsafe {
        asm!("dup {0:v}.4s, {1:w}", "sdot {0:v}.4s, {2:v}.16b, {3:v}.4b[2]", "sdot {0:v}.4s, {4:v}.16b, {3:v}.4b[3]",
            out(vreg) sixteens, in(reg) 0, in(vreg) w[6], in(vreg) high, in(vreg) w[7],
            options(pure, nomem, nostack, preserves_flags));
    }
    let last = vsraq_n_s32::<2>(fours, sixteens);
    let sums = vuzp1q_s16(vreinterpretq_s16_s32(first), vreinterpretq_s16_s32(last));
    // SAFETY: registers only.
    unsafe {
        asm!("dup {0:v}.4s, {1:w}", "smlal {0:v}.4s, {2:v}.4h, {3:v}.4h", "smlal2 {0:v}.4s, {2:v}.8h, {3:v}.8h",
            out(vreg) sum, in(reg) const { round(2).to_bits() }, in(vreg) sums, in(vreg) factors,
            options(pure, nomem, nostack, preserves_flags));
    }
    rounded(sum, 2)
}

/// As [`dot_sixteens_neon`], where sums of 16 products fit in 16 bits; so are the factors, those of the first 16 columns before
/// those of the last.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot_narrow_sixteens_neon(
    w: &[int8x16_t; 8],
    x: [int8x16_t; 8],
    factors: int16x8_t,
) -> float32x4_t {
    let more = |(low, high), i: usize| (smlal(low, w[i], x[i]), smlal2(high, w[i], x[i]));
    let four = |i: usize| {
        let (low, high) = more(more(more(smull(w[i], x[i]), i + 1), i + 2), i + 3);
        addp_16(low, high)
    };
    scaled_sixteens(addp_16(four(0), four(4)), factors)
}

/// Sums of the first 16 columns of four rows, then of their last 16, times a factor each.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn scaled_sixteens(sums: int16x8_t, factors: int16x8_t) -> float32x4_t {
    let first = vmull_s16(vget_low_s16(sums), vget_low_s16(factors));
    vcvtq_f32_s32(vmlal_high_s16(first, sums, factors))
}

/// As [`column_dotprod`], with factors of the first and of the last 16 columns. Both sums become floats as [`round`] says, and
/// are multiplied as such: below 2²⁴ that is exact, and the Cortex-A76 multiplies floats on both of its pipes, integers of 32
/// bits on one and in twice the time. What it copies from a general register takes neither.
///
/// # Safety
/// 32 quants must be readable `AT` bytes behind `x`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn column_sixteens_dotprod<F: Quads, const AT: usize, const LANE: usize>(
    mut total: float32x4_t,
    w: &[int8x16_t; 8],
    x: *const i8,
    scale: float32x4_t,
    scales: float32x4_t,
    factors: [float32x4_t; 2],
) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ldp {low:q}, {high:q}, [{x}, #{at}]",
            "dup {first:v}.4s, {round:w}",
            "dup {last:v}.4s, {round:w}",
            "sdot {first:v}.4s, {w0:v}.16b, {low:v}.4b[0]",
            "sdot {last:v}.4s, {w4:v}.16b, {high:v}.4b[0]",
            "sdot {first:v}.4s, {w1:v}.16b, {low:v}.4b[1]",
            "sdot {last:v}.4s, {w5:v}.16b, {high:v}.4b[1]",
            "sdot {first:v}.4s, {w2:v}.16b, {low:v}.4b[2]",
            "sdot {last:v}.4s, {w6:v}.16b, {high:v}.4b[2]",
            "sdot {first:v}.4s, {w3:v}.16b, {low:v}.4b[3]",
            "sdot {last:v}.4s, {w7:v}.16b, {high:v}.4b[3]",
            "dup {high:v}.4s, {round:w}",
            "fmul {low:v}.4s, {scale:v}.4s, {scales:v}.s[{lane}]",
            "fsub {first:v}.4s, {first:v}.4s, {high:v}.4s",
            "fsub {last:v}.4s, {last:v}.4s, {high:v}.4s",
            "fmul {first:v}.4s, {first:v}.4s, {f0:v}.4s",
            "fmla {first:v}.4s, {last:v}.4s, {f1:v}.4s",
            "fmla {total:v}.4s, {first:v}.4s, {low:v}.4s",
            total = inout(vreg) total, first = out(vreg) _, last = out(vreg) _, low = out(vreg) _,
            high = out(vreg) _, x = in(reg) x, f0 = in(vreg) factors[0], f1 = in(vreg) factors[1],
            w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
            w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
            scale = in(vreg) scale, scales = in(vreg) scales, round = in(reg) const { round(F::FRACTION).to_bits() },
            at = const AT, lane = const LANE,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    total
}

/// The same without `sdot`.
///
/// # Safety
/// 32 quants must be readable `AT` bytes behind `x`.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
#[allow(clippy::extra_unused_type_parameters)] // called as `column_sixteens_dotprod` is
pub(super) unsafe fn column_sixteens_neon<F: Quads, const AT: usize, const LANE: usize>(
    mut total: float32x4_t,
    w: &[int8x16_t; 8],
    x: *const i8,
    scale: float32x4_t,
    scales: float32x4_t,
    factors: [int32x4_t; 2],
) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ldr {x:q}, [{p}, #{at}]",
            step!("smull", "smull2", "w0", 0), step!("smlal", "smlal2", "w1", 1),
            step!("smlal", "smlal2", "w2", 2), step!("smlal", "smlal2", "w3", 3),
            "ldr {x:q}, [{p}, #{behind}]",
            "addp {low:v}.8h, {low:v}.8h, {high:v}.8h",
            "saddlp {first:v}.4s, {low:v}.8h",
            "mul {first:v}.4s, {first:v}.4s, {f0:v}.4s",
            step!("smull", "smull2", "w4", 0), step!("smlal", "smlal2", "w5", 1),
            step!("smlal", "smlal2", "w6", 2), step!("smlal", "smlal2", "w7", 3),
            "addp {low:v}.8h, {low:v}.8h, {high:v}.8h",
            "saddlp {low:v}.4s, {low:v}.8h",
            "mla {first:v}.4s, {low:v}.4s, {f1:v}.4s",
            "fmul {t:v}.4s, {scale:v}.4s, {scales:v}.s[{lane}]",
            "scvtf {first:v}.4s, {first:v}.4s",
            "fmla {total:v}.4s, {first:v}.4s, {t:v}.4s",
            total = inout(vreg) total, low = out(vreg) _, high = out(vreg) _, x = out(vreg) _, t = out(vreg) _,
            first = out(vreg) _, f0 = in(vreg) factors[0], f1 = in(vreg) factors[1],
            w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
            w4 = in(vreg) w[4], w5 = in(vreg) w[5], w6 = in(vreg) w[6], w7 = in(vreg) w[7],
            p = in(reg) x, scale = in(vreg) scale, scales = in(vreg) scales,
            at = const AT, behind = const AT + 16, lane = const LANE,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    total
}
