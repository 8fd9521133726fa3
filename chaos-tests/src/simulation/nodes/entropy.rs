//! Replaces the operating system's randomness by a seed's. Hash maps, tokio's `select!`, openraft's election timeouts
//! and every other user of it draw the same numbers in every process with the same seed.
//!
//! All of them call `getrandom(2)` by the C library's function of that name. The function here takes its place, and
//! calls the kernel until a seed is sown.

#![allow(unreachable_pub)] // For the C library.
#![allow(unsafe_code)] // The C library's own signature; one pointer, written within its bounds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::libc;

static IS_SOWN: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on all randomness of this process follows from `seed`. A thread that has drawn before keeps its old source,
/// so begin a new thread after this call.
pub(super) fn sow(seed: u64) {
    STATE.store(seed, Ordering::SeqCst);
    IS_SOWN.store(true, Ordering::SeqCst);
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = STATE.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `getrandom(2)`.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: usize, flags: libc::c_uint) -> isize {
    if !IS_SOWN.load(Ordering::SeqCst) {
        // SAFETY: the caller's promise is the kernel's demand.
        let written = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(written).unwrap_or(-1);
    }
    // SAFETY: by the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
