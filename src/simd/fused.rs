//! Fused multiply-add for plain code: one definition, compiled twice on a PC.
//!
//! Plain Rust has no fused multiply-add without `std`, and `libm`'s is a function call on x86. So a plain body takes a
//! [`Fused`] as a type parameter, and [`compiled_twice!`] makes the function that runs it with [`Soft`] or, inside a
//! function compiled for AVX2 and FMA, with [`Hard`]. Both round once, so both give the same bits.

/// What plain bodies are written with.
pub trait Fused: Copy {
    /// `a × b + c`, rounded once.
    fn madd(a: f32, b: f32, c: f32) -> f32;
    /// The same in eight lanes.
    fn madd8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8];
    /// The same in four lanes.
    fn madd4(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4];
    /// Eight binary16 as f32.
    fn widen8(halves: [u16; 8]) -> [f32; 8];
    /// Eight f32 rounded to binary16, ties to even.
    fn narrow8(floats: [f32; 8]) -> [u16; 8];
}

/// For every CPU.
#[derive(Clone, Copy, Debug)]
pub struct Soft;

impl Fused for Soft {
    #[inline(always)]
    fn madd(a: f32, b: f32, c: f32) -> f32 {
        // `fmadd`, which `libm` has too, but as a function that is not inlined.
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 target of this project has Advanced SIMD.
        unsafe {
            use core::arch::aarch64::*;
            vget_lane_f32::<0>(vfma_f32(vdup_n_f32(c), vdup_n_f32(a), vdup_n_f32(b)))
        }
        #[cfg(not(target_arch = "aarch64"))]
        libm::fmaf(a, b, c)
    }

    #[inline(always)]
    fn madd8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        core::array::from_fn(|i| Self::madd(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn madd4(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        core::array::from_fn(|i| Self::madd(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn widen8(halves: [u16; 8]) -> [f32; 8] {
        halves.map(|half| half::f16::from_bits(half).to_f32())
    }

    #[inline(always)]
    fn narrow8(floats: [f32; 8]) -> [u16; 8] {
        floats.map(|float| half::f16::from_f32(float).to_bits())
    }
}

/// For functions that are compiled for AVX2, FMA and F16C, and only for them: elsewhere each operation is a call.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Hard(());

#[cfg(target_arch = "x86_64")]
mod hard {
    use super::{Fused, Hard};
    use core::arch::x86_64::*;
    use core::mem::transmute;

    /// The eight lanes as a vector.
    #[inline(always)]
    fn vector(lanes: [f32; 8]) -> __m256 {
        // SAFETY: the same bytes.
        unsafe { transmute::<[f32; 8], __m256>(lanes) }
    }

    impl Fused for Hard {
        #[inline(always)]
        fn madd(a: f32, b: f32, c: f32) -> f32 {
            // SAFETY: `Hard` is only named inside functions that a `super::super::Fma` is the key to.
            unsafe { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
        }

        #[inline(always)]
        fn madd8(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
            // SAFETY: as above; arrays and vectors of eight floats have the same bytes.
            unsafe {
                let (a, b, c) = (vector(a), vector(b), vector(c));
                transmute::<__m256, [f32; 8]>(_mm256_fmadd_ps(a, b, c))
            }
        }

        #[inline(always)]
        fn madd4(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
            // SAFETY: as above; arrays and vectors of four floats have the same bytes.
            unsafe {
                // Written out: `map` is not always inlined.
                let (a, b) = (transmute::<[f32; 4], __m128>(a), transmute::<[f32; 4], __m128>(b));
                let c = transmute::<[f32; 4], __m128>(c);
                transmute::<__m128, [f32; 4]>(_mm_fmadd_ps(a, b, c))
            }
        }

        #[inline(always)]
        fn widen8(halves: [u16; 8]) -> [f32; 8] {
            // SAFETY: as above.
            unsafe { transmute::<__m256, [f32; 8]>(_mm256_cvtph_ps(transmute::<[u16; 8], __m128i>(halves))) }
        }

        #[inline(always)]
        fn narrow8(floats: [f32; 8]) -> [u16; 8] {
            // SAFETY: as above.
            unsafe {
                transmute::<__m128i, [u16; 8]>(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector(floats)))
            }
        }
    }
}

/// Makes `fn name(level, …)` of a plain body `fn body<M: Fused, …>(…)`, which has to be `#[inline(always)]`. At
/// [`Level::Fma`](super::Level) it runs as compiled for AVX2, FMA and F16C, at every other level as compiled for any CPU.
///
/// ```ignore
/// compiled_twice! {
///     /// What it does.
///     pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
///     fn multiply[F: Block32](rows: &[u8], inputs: &Inputs, out: &mut Band<'_>) = multiply_body;
/// }
/// ```
///
/// A module that uses it has to allow `unsafe_code`.
macro_rules! compiled_twice {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident $([$($generic:ident: $bound:path),+])?
        ($($argument:ident: $type:ty),* $(,)?) $(-> $returned:ty)? = $body:ident;)+) => {$(
        $(#[$attribute])*
        #[inline]
        $visibility fn $name$(<$($generic: $bound),+>)?(level: $crate::simd::Level, $($argument: $type),*) $(-> $returned)? {
            #[cfg(target_arch = "x86_64")]
            if let $crate::simd::Level::Fma(_) = level {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn compiled$(<$($generic: $bound),+>)?($($argument: $type),*) $(-> $returned)? {
                    $body::<$crate::simd::fused::Hard $($(, $generic)+)?>($($argument),*)
                }
                // SAFETY: the level holds the proof that the CPU has the instructions.
                return unsafe { compiled$(::<$($generic),+>)?($($argument),*) };
            }
            let _ = level;
            $body::<$crate::simd::fused::Soft $($(, $generic)+)?>($($argument),*)
        }
    )+};
}
pub(crate) use compiled_twice;

#[cfg(test)]
#[allow(unsafe_code)] // `compiled_twice!` calls what is compiled for AVX2
mod tests {
    use super::*;
    use crate::simd::levels;
    use proptest::prelude::*;

    #[inline(always)]
    fn each_body<M: Fused>(a: f32, b: f32, c: f32, half: u16) -> [f32; 4] {
        [
            M::madd(a, b, c),
            M::madd8([a; 8], [b; 8], [c; 8])[7],
            M::madd4([a; 4], [b; 4], [c; 4])[3],
            M::widen8([half; 8])[7],
        ]
    }
    compiled_twice! { fn each(a: f32, b: f32, c: f32, half: u16) -> [f32; 4] = each_body; }

    #[test]
    fn a_sum_is_rounded_once() {
        // 2⁻²⁴ of the product decides: rounded twice, it is gone before the sum.
        let (a, c) = (1.0 + f32::EPSILON, -1.0 - 2.0 * f32::EPSILON);
        for level in levels() {
            let square = f32::EPSILON * f32::EPSILON;
            assert_eq!(each(level, a, a, c, 0x3c00), [square, square, square, 1.0]);
        }
    }

    proptest! {
        #[test]
        fn every_level_fuses_and_widens_to_the_same_bits(a: u32, b: u32, c: u32, half: u16) {
            let [a, b, c] = [a, b, c].map(f32::from_bits);
            let exact = [libm::fmaf(a, b, c), libm::fmaf(a, b, c), libm::fmaf(a, b, c), half::f16::from_bits(half).to_f32()];
            for level in levels() {
                for (got, exact) in each(level, a, b, c, half).into_iter().zip(exact) {
                    prop_assert!(got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan());
                }
            }
        }
    }
}
