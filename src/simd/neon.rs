//! The few vector helpers that all kernels share: loads of any alignment, dot products, half floats.
//!
//! `aarch64-unknown-none` is compiled with strict alignment, where `vld1q_s8` from a block that is only
//! 2-byte aligned becomes byte loads through the stack. Weights lie in normal cached memory, where one `ldr q`
//! may have any alignment (Arm ARM B2.7.2), so loads are written as that instruction.

use core::arch::aarch64::*;
use core::arch::asm;

/// Loads 16 bytes from any alignment.
///
/// # Safety
/// 16 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load(from: *const u8) -> int8x16_t {
    let value: int8x16_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {0:q}, [{1}]", out(vreg) value, in(reg) from, options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Loads 16 bytes `AT` bytes (−256 to 255) behind an address of any alignment: one operation to the Cortex-A76, where
/// other offsets are two.
///
/// # Safety
/// 16 bytes there must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_near<const AT: i32>(from: *const i8) -> int8x16_t {
    let value: int8x16_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldur {0:q}, [{1}, #{2}]", out(vreg) value, in(reg) from, const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Loads 32 bytes from any alignment.
///
/// # Safety
/// 32 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_pair(from: *const u8) -> (int8x16_t, int8x16_t) {
    let (low, high): (int8x16_t, int8x16_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldp {0:q}, {1:q}, [{2}]", out(vreg) low, out(vreg) high, in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Loads four floats from any alignment, as one operation: see [`load_near`].
///
/// # Safety
/// 16 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_floats(from: *const f32) -> float32x4_t {
    let value: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldur {0:q}, [{1}]", out(vreg) value, in(reg) from, options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Loads four floats `AT` bytes (up to 255) behind an address of any alignment, as one operation.
///
/// # Safety
/// 16 bytes there must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_floats_at<const AT: usize>(from: *const f32) -> float32x4_t {
    let value: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldur {0:q}, [{1}, #{2}]", out(vreg) value, in(reg) from, const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Loads eight floats from any alignment.
///
/// # Safety
/// 32 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_floats_pair(from: *const f32) -> (float32x4_t, float32x4_t) {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldp {0:q}, {1:q}, [{2}]", out(vreg) low, out(vreg) high, in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Loads sixteen floats from any alignment, each vector as one operation: see [`load_near`].
///
/// # Safety
/// 64 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_floats_quad(from: *const f32) -> [float32x4_t; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            load_floats_at::<0>(from),
            load_floats_at::<16>(from),
            load_floats_at::<32>(from),
            load_floats_at::<48>(from),
        ]
    }
}

/// Stores 32 bytes at any alignment.
///
/// # Safety
/// 32 bytes at `to` must be writable, in normal memory.
#[inline(always)]
pub unsafe fn store_pair(to: *mut i8, low: int8x16_t, high: int8x16_t) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("stp {0:q}, {1:q}, [{2}]", in(vreg) low, in(vreg) high, in(reg) to, options(nostack, preserves_flags));
    }
}

/// Stores four floats at any alignment.
///
/// # Safety
/// 16 bytes at `to` must be writable, in normal memory.
#[inline(always)]
pub unsafe fn store_floats(to: *mut f32, value: float32x4_t) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("str {0:q}, [{1}]", in(vreg) value, in(reg) to, options(nostack, preserves_flags));
    }
}

/// Stores eight floats at any alignment.
///
/// # Safety
/// 32 bytes at `to` must be writable, in normal memory.
#[inline(always)]
pub unsafe fn store_floats_pair(to: *mut f32, (low, high): (float32x4_t, float32x4_t)) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("stp {0:q}, {1:q}, [{2}]", in(vreg) low, in(vreg) high, in(reg) to, options(nostack, preserves_flags));
    }
}

/// Loads one binary16 from each of four places and widens them.
///
/// # Safety
/// 2 bytes at each pointer must be readable, in normal memory.
#[inline(always)]
pub unsafe fn gather_half(from: [*const u8; 4]) -> float32x4_t {
    let value: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "ldr {v:h}, [{a}]", "ld1 {{{v:v}.h}}[1], [{b}]", "ld1 {{{v:v}.h}}[2], [{c}]", "ld1 {{{v:v}.h}}[3], [{d}]",
            "fcvtl {v:v}.4s, {v:v}.4h",
            v = out(vreg) value, a = in(reg) from[0], b = in(reg) from[1], c = in(reg) from[2], d = in(reg) from[3],
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Widens four binary16 from any alignment.
///
/// # Safety
/// 8 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_half(from: *const u16) -> float32x4_t {
    let value: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {v:d}, [{p}]", "fcvtl {v:v}.4s, {v:v}.4h", v = out(vreg) value, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Widens one binary16, to all four lanes.
///
/// # Safety
/// 2 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn repeat_half(from: *const u16) -> float32x4_t {
    let value: float32x4_t;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ld1r {{{v:v}.4h}}, [{p}]", "fcvtl {v:v}.4s, {v:v}.4h", v = out(vreg) value, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Widens eight binary16 from any alignment.
///
/// # Safety
/// 16 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_half_pair(from: *const u16) -> (float32x4_t, float32x4_t) {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {low:q}, [{p}]", "fcvtl2 {high:v}.4s, {low:v}.8h", "fcvtl {low:v}.4s, {low:v}.4h",
            low = out(vreg) low, high = out(vreg) high, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Widens eight bfloat16 from any alignment.
///
/// # Safety
/// 16 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_bf16_pair(from: *const u16) -> (float32x4_t, float32x4_t) {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {low:q}, [{p}]", "shll2 {high:v}.4s, {low:v}.8h, #16", "shll {low:v}.4s, {low:v}.4h, #16",
            low = out(vreg) low, high = out(vreg) high, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Widens sixteen binary16 from any alignment.
///
/// # Safety
/// 32 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_half_quad(from: *const u16) -> [float32x4_t; 4] {
    let (a, b, c, d): (float32x4_t, float32x4_t, float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldp {a:q}, {c:q}, [{p}]", "fcvtl2 {b:v}.4s, {a:v}.8h", "fcvtl {a:v}.4s, {a:v}.4h",
            "fcvtl2 {d:v}.4s, {c:v}.8h", "fcvtl {c:v}.4s, {c:v}.4h",
            a = out(vreg) a, b = out(vreg) b, c = out(vreg) c, d = out(vreg) d, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// Widens sixteen bfloat16 from any alignment.
///
/// # Safety
/// 32 bytes at `from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn load_bf16_quad(from: *const u16) -> [float32x4_t; 4] {
    let (a, b, c, d): (float32x4_t, float32x4_t, float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldp {a:q}, {c:q}, [{p}]", "shll2 {b:v}.4s, {a:v}.8h, #16", "shll {a:v}.4s, {a:v}.4h, #16",
            "shll2 {d:v}.4s, {c:v}.8h, #16", "shll {c:v}.4s, {c:v}.4h, #16",
            a = out(vreg) a, b = out(vreg) b, c = out(vreg) c, d = out(vreg) d, p = in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// Widens eight binary16 from any alignment and steps over them.
///
/// # Safety
/// 16 bytes at `*from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn next_half_pair(from: &mut *const u16) -> (float32x4_t, float32x4_t) {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {low:q}, [{p}], #16", "fcvtl2 {high:v}.4s, {low:v}.8h", "fcvtl {low:v}.4s, {low:v}.4h",
            low = out(vreg) low, high = out(vreg) high, p = inout(reg) *from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Loads eight floats from any alignment and steps over them.
///
/// # Safety
/// 32 bytes at `*from` must be readable, in normal memory.
#[inline(always)]
pub unsafe fn next_floats_pair(from: &mut *const f32) -> (float32x4_t, float32x4_t) {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldp {0:q}, {1:q}, [{2}], #32", out(vreg) low, out(vreg) high, inout(reg) *from,
            options(pure, readonly, nostack, preserves_flags));
    }
    (low, high)
}

/// Rounds eight floats to binary16, to nearest even, and stores them at any alignment.
///
/// # Safety
/// 16 bytes at `to` must be writable, in normal memory.
#[inline(always)]
pub unsafe fn store_half_pair(to: *mut u16, (low, high): (float32x4_t, float32x4_t)) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("fcvtn {low:v}.4h, {low:v}.4s", "fcvtn2 {low:v}.8h, {high:v}.4s", "str {low:q}, [{p}]",
            low = inout(vreg) low => _, high = in(vreg) high, p = in(reg) to, options(nostack, preserves_flags));
    }
}

/// Four sums of four products of signed bytes, added to `sum`: ARMv8.2 `sdot`, which stable Rust lacks.
///
/// # Safety
/// Code that is not itself compiled for `dotprod` must hold a [`super::Dotprod`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub fn sdot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only; the instruction exists where this function may be called.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The same with four bytes of `x`, word `LANE` of it, for every lane: a tile whose lanes are rows.
///
/// # Safety
/// Code that is not itself compiled for `dotprod` must hold a [`super::Dotprod`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub fn sdot_lane<const LANE: i32>(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only; the instruction exists where this function may be called.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) sum, in(vreg) w, in(vreg) x, const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Asks for the cache line `AHEAD` bytes (a multiple of 8) behind an address, which will be read once. An address that
/// cannot be read is ignored.
#[inline(always)]
pub fn prefetch<const AHEAD: usize>(from: *const u8) {
    // SAFETY: a prefetch changes no state that a program can see and never faults (Arm ARM C6.2.248).
    unsafe {
        asm!("prfm pldl1strm, [{0}, #{1}]", in(reg) from, const AHEAD, options(readonly, nostack, preserves_flags));
    }
}

/// The sums of four vectors, one a lane.
///
/// # Safety
/// None beyond Advanced SIMD, which every AArch64 target of this project has.
#[inline]
#[target_feature(enable = "neon")]
pub fn sums(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// Four rows of four words become four columns.
///
/// # Safety
/// None beyond Advanced SIMD, which every AArch64 target of this project has.
#[inline]
#[target_feature(enable = "neon")]
pub fn transpose(rows: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let [upper, lower] = [0, 2].map(|row| {
        let (even, odd) = (vtrn1q_s32(rows[row], rows[row + 1]), vtrn2q_s32(rows[row], rows[row + 1]));
        [vreinterpretq_s64_s32(even), vreinterpretq_s64_s32(odd)]
    });
    [
        vreinterpretq_s32_s64(vtrn1q_s64(upper[0], lower[0])),
        vreinterpretq_s32_s64(vtrn1q_s64(upper[1], lower[1])),
        vreinterpretq_s32_s64(vtrn2q_s64(upper[0], lower[0])),
        vreinterpretq_s32_s64(vtrn2q_s64(upper[1], lower[1])),
    ]
}
