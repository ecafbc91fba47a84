//! Copies: how many bytes `memcpy` and `memmove` move, so that `bench` can say that a token moves none, or how many.
//!
//! The linker sends every call of the two through here (`--wrap`, in `build.rs`). Copies so short that the compiler
//! writes them out are no calls and are not counted.
#![allow(unsafe_code)] // the C functions that the compiler calls, under the names that the linker looks for

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Somebody has asked. Not before: until the MMU is on, memory has no exclusive access for an atomic sum.
static ASKED: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes copied since the first call of this.
pub fn copied() -> u64 {
    ASKED.store(true, Ordering::Relaxed);
    BYTES.load(Ordering::Relaxed)
}

unsafe extern "C" {
    fn __real_memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn __real_memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
}

fn count(bytes: usize) {
    if ASKED.load(Ordering::Relaxed) {
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What the linker calls where the compiler wrote `memcpy`.
// SAFETY: the name is the linker's own for this purpose; nobody else may define it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    count(bytes);
    // SAFETY: the caller's promise, passed on.
    unsafe { __real_memcpy(to, from, bytes) }
}

/// What the linker calls where the compiler wrote `memmove`.
// SAFETY: the name is the linker's own for this purpose; nobody else may define it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    count(bytes);
    // SAFETY: the caller's promise, passed on.
    unsafe { __real_memmove(to, from, bytes) }
}
