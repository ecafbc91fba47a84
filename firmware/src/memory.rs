//! Memory: which RAM is ours, and who gets it.
//!
//! RAM is what the boot loader told, less what is taken: page 0, the image, its stacks, the device tree, the
//! initial RAM disk, VideoCore's share. Of the rest, a small heap (`buddy_system_allocator`) serves everything
//! below [`LARGE`]; all other RAM serves the large pieces — weights, cache, scratch — first fit, to the byte: a
//! buddy heap would round a 65 MB model up to 128 MB.
//!
//! Large pieces that follow each other are set apart by [`APART`]: two streams at addresses that differ by a
//! power of two evict each other from caches and TLBs that are indexed by low address bits.
//!
//! A piece that no stretch of RAM holds, such as a model of 5 GB on a Raspberry Pi 4 with 8, takes several: the map shows
//! the stretches once more, one right behind the other ([`Joined`]).
//!
//! A request that can't be served is answered with a null pointer; the engine turns that into a sentence.
#![allow(unsafe_code)] // a global allocator deals in raw memory

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use buddy_system_allocator::Heap as Buddy;
use embodios_bsp::cpu::mmu;
use heapless::Vec;
use spin::Mutex;

/// Requests from here on are large.
pub const LARGE: usize = 1 << 20;
/// Distance between large pieces: no multiple of any cache's or TLB's stride, a multiple of a cache line.
pub const APART: u64 = 0x5040;
/// Bytes of the small heap where RAM allows.
pub const SMALL_HEAP: u64 = 32 << 20;
/// Alignment of every large piece: a cache line.
const LINE: u64 = 64;
/// Pieces of free RAM kept track of.
const HOLES: usize = 1024;

/// Ranges of memory.
pub type Ranges = Vec<Range<u64>, 64>;

/// What is left of `banks` without `taken`, in whole pages, in order of address, neighbours joined.
pub fn free_ranges(banks: &[Range<u64>], taken: &[Range<u64>]) -> Ranges {
    const PAGE: u64 = 4096;
    let mut free = Ranges::new();
    for bank in banks {
        let whole = bank.start.next_multiple_of(PAGE)..bank.end & !(PAGE - 1);
        if whole.start < whole.end {
            let _ = free.push(whole); // as many banks as the hand-over can name fit
        }
    }
    free.sort_unstable_by_key(|range| range.start);
    let mut joined = Ranges::new();
    for range in free {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => drop(joined.push(range)),
        }
    }
    for hole in taken {
        let hole = hole.start & !(PAGE - 1)..hole.end.saturating_add(PAGE - 1) & !(PAGE - 1);
        let mut left = Ranges::new();
        for range in joined {
            let parts = [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end];
            if hole.end <= range.start || range.end <= hole.start {
                drop(left.push(range));
                continue;
            }
            for part in parts.into_iter().filter(|part| part.start < part.end) {
                drop(left.push(part));
            }
        }
        joined = left;
    }
    joined
}

/// Stretches of RAM that can be had as one, from [`mmu::JOINED`] on, in order of address.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    stretches: Vec<Range<u64>, 16>,
}

impl Joined {
    /// So much is joined at most: all RAM of the largest board. A stretch as long has no need of others.
    const MOST: u64 = 16 << 30;
    /// Shorter stretches are crumbs.
    const SHORTEST: u64 = 64 << 20;

    /// None.
    pub const fn none() -> Self {
        Self { stretches: Vec::new() }
    }

    /// Those of these stretches, cut to whole blocks of the map. One alone needs no joining.
    pub fn of(free: &[Range<u64>]) -> Self {
        let whole =
            |range: &Range<u64>| range.start.next_multiple_of(mmu::BLOCK)..range.end & !(mmu::BLOCK - 1);
        let long = |range: &Range<u64>| range.end.saturating_sub(range.start) >= Self::SHORTEST;
        let mut stretches = Vec::new();
        let mut left = Self::MOST;
        for mut range in free.iter().map(whole).filter(long) {
            range.end = range.end.min(range.start + left);
            left -= range.end - range.start;
            if !range.is_empty() {
                let _ = stretches.push(range); // with sixteen there is room enough
            }
        }
        let longest = free.iter().map(|range| range.end - range.start).max().unwrap_or(0);
        if stretches.len() < 2 || longest >= Self::MOST { Self::none() } else { Self { stretches } }
    }

    /// Each stretch: the addresses where it can be had, and where it is.
    pub fn views(&self) -> impl Iterator<Item = (Range<u64>, Range<u64>)> {
        let mut next = mmu::JOINED.start;
        let view = move |stretch: &Range<u64>| {
            let start = next;
            next += stretch.end - stretch.start;
            (start..next, stretch.clone())
        };
        self.stretches.iter().map(view)
    }

    /// Where the parts of a piece are that was had as one.
    fn parts(&self, piece: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.views().filter_map(move |(view, stretch)| {
            let (start, end) = (piece.start.max(view.start), piece.end.min(view.end));
            (start < end).then(|| start - view.start + stretch.start..end - view.start + stretch.start)
        })
    }
}

/// Free RAM for large pieces: holes in order of address, first fit.
#[derive(Debug, Default)]
pub struct Holes {
    holes: Vec<Range<u64>, HOLES>,
    joined: Joined,
}

impl Holes {
    /// No RAM.
    pub const fn new() -> Self {
        Self { holes: Vec::new(), joined: Joined::none() }
    }

    /// Lets pieces lie in several of these stretches.
    pub fn join(&mut self, joined: Joined) {
        self.joined = joined;
    }

    /// Bytes free.
    pub fn free(&self) -> u64 {
        self.holes.iter().map(|hole| hole.end - hole.start).sum()
    }

    /// Bytes free within `range`.
    pub fn free_within(&self, range: &Range<u64>) -> u64 {
        let overlap = |hole: &Range<u64>| hole.end.min(range.end).saturating_sub(hole.start.max(range.start));
        self.holes.iter().map(overlap).sum()
    }

    /// Takes a piece out of the first hole that holds it, [`APART`] from its beginning where there is room; else out of
    /// holes that follow each other where RAM is joined.
    pub fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let (bytes, align) = (bytes.checked_next_multiple_of(LINE)?, align.max(LINE));
        self.take_one(bytes, align).or_else(|| self.take_joined(bytes, align))
    }

    fn take_joined(&mut self, bytes: u64, align: u64) -> Option<u64> {
        if self.holes.len() + 2 > HOLES {
            return None; // only its first and last hole may leave a rest
        }
        let mut run: Range<u64> = 0..0;
        let mut found = None;
        'search: for (view, stretch) in self.joined.views() {
            for hole in &self.holes {
                let (start, end) = (hole.start.max(stretch.start), hole.end.min(stretch.end));
                if start >= end {
                    continue;
                }
                let seen = start - stretch.start + view.start..end - stretch.start + view.start;
                if run.end == seen.start {
                    run.end = seen.end
                } else {
                    run = seen
                }
                let start = (run.start + APART).next_multiple_of(align);
                if start.checked_add(bytes)? <= run.end {
                    found = Some(start);
                    break 'search;
                }
            }
        }
        let start = found?;
        let joined = self.joined.clone();
        for part in joined.parts(start..start + bytes) {
            let index =
                self.holes.iter().position(|hole| hole.start <= part.start && part.end <= hole.end)?;
            self.cut(index, part);
        }
        Some(start)
    }

    fn take_one(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let fits = |hole: &Range<u64>, from: u64| {
            let start = from.checked_next_multiple_of(align)?;
            (start.checked_add(bytes)? <= hole.end).then_some(start)
        };
        let (index, start) = self.holes.iter().enumerate().find_map(|(index, hole)| {
            let start = fits(hole, hole.start + APART).or_else(|| fits(hole, hole.start))?;
            Some((index, start))
        })?;
        self.cut(index, start..start + bytes).then_some(start)
    }

    /// Takes the bytes behind a piece, if they are free, so that it grows where it is.
    pub fn extend(&mut self, piece: Range<u64>, bytes: u64) -> bool {
        let end = piece.end.next_multiple_of(LINE);
        let Some(wanted) = piece.start.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(LINE))
        else {
            return false;
        };
        if wanted <= end {
            return true;
        }
        let behind = self.holes.iter().position(|hole| hole.start <= end && wanted <= hole.end);
        behind.is_some_and(|index| self.cut(index, end..wanted))
    }

    /// Takes `piece` out of the hole it lies in. False if the list has no room for the two that may be left.
    fn cut(&mut self, index: usize, piece: Range<u64>) -> bool {
        let hole = self.holes[index].clone();
        let before = hole.start..piece.start;
        let behind = piece.end..hole.end;
        match (before.is_empty(), behind.is_empty()) {
            (true, true) => drop(self.holes.remove(index)),
            (true, false) => self.holes[index] = behind,
            (false, true) => self.holes[index] = before,
            (false, false) => {
                if self.holes.insert(index + 1, behind).is_err() {
                    return false;
                }
                self.holes[index] = before;
            }
        }
        true
    }

    /// Gives a piece back, and joins it with its neighbours.
    pub fn give(&mut self, piece: Range<u64>) {
        let piece = piece.start..piece.end.next_multiple_of(LINE);
        if mmu::JOINED.contains(&piece.start) {
            let joined = self.joined.clone();
            joined.parts(piece).for_each(|part| self.give_one(part));
        } else {
            self.give_one(piece);
        }
    }

    fn give_one(&mut self, piece: Range<u64>) {
        let index = self.holes.partition_point(|hole| hole.start < piece.start);
        let joins_before = index > 0 && self.holes[index - 1].end == piece.start;
        let joins_behind = self.holes.get(index).is_some_and(|hole| hole.start == piece.end);
        match (joins_before, joins_behind) {
            (true, true) => {
                self.holes[index - 1].end = self.holes[index].end;
                self.holes.remove(index);
            }
            (true, false) => self.holes[index - 1].end = piece.end,
            (false, true) => self.holes[index].start = piece.start,
            // With the list full the piece is lost: a thousand holes mean that all is lost anyway.
            (false, false) => drop(self.holes.insert(index, piece)),
        }
    }
}

/// Whether these stretches of RAM, empty, hold all these pieces, taken in this order. What is not
/// [`LARGE`] goes to the small heap and does not count.
pub fn hold(ranges: &[Range<u64>], pieces: &[u64]) -> bool {
    let mut holes = Holes::new();
    ranges.iter().for_each(|range| holes.give(range.clone()));
    holes.join(Joined::of(ranges));
    pieces.iter().filter(|&&bytes| bytes >= LARGE as u64).all(|&bytes| holes.take(bytes, LINE).is_some())
}

/// The allocator: a small heap and large pieces.
pub struct Allocator {
    small: Mutex<Buddy<32>>,
    large: Mutex<Holes>,
    small_start: AtomicU64,
    small_end: AtomicU64,
    /// Bytes of small requests, now and at most.
    small_used: AtomicU64,
    small_peak: AtomicU64,
    /// Requests so far.
    allocations: AtomicU64,
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Allocator {
    /// An allocator without memory.
    pub const fn new() -> Self {
        Self {
            small: Mutex::new(Buddy::new()),
            large: Mutex::new(Holes::new()),
            small_start: AtomicU64::new(0),
            small_end: AtomicU64::new(0),
            small_used: AtomicU64::new(0),
            small_peak: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
        }
    }

    /// Gives it memory, whose stretches the map may show as one: the small heap comes from the front of the first range that has room for it (a quarter
    /// of the largest, on a machine with little), all else is for large pieces. Once. Returns the small heap.
    ///
    /// # Safety
    /// The ranges must be mapped, writable memory that nothing else uses, from now on and for good; and mapped a second
    /// time as [`Joined::views`] says.
    pub unsafe fn start(&self, free: &[Range<u64>], joined: Joined) -> Range<u64> {
        let length = |range: &Range<u64>| range.end - range.start;
        let largest = free.iter().map(length).max().unwrap_or(0);
        let bytes = SMALL_HEAP.min(largest / 4) & !4095;
        let home = free.iter().position(|range| length(range) >= bytes).filter(|_| bytes > 0);
        let mut heap = 0..0;
        let mut large = self.large.lock();
        for (index, range) in free.iter().enumerate() {
            let mut rest = range.clone();
            if home == Some(index) {
                heap = range.start..range.start + bytes;
                rest.start = heap.end;
            }
            if length(&rest) >= LARGE as u64 {
                large.give(rest);
            }
        }
        large.join(joined);
        drop(large);
        if !heap.is_empty() {
            // SAFETY: the caller vouches for the range, and it was kept out of the large pieces.
            unsafe { self.small.lock().init(heap.start as usize, bytes as usize) };
        }
        self.small_start.store(heap.start, Ordering::Release);
        self.small_end.store(heap.end, Ordering::Release);
        heap
    }

    /// Bytes that large pieces may still take.
    pub fn large_free(&self) -> u64 {
        self.large.lock().free()
    }

    /// Bytes within `range` that large pieces may still take.
    pub fn large_free_within(&self, range: &Range<u64>) -> u64 {
        self.large.lock().free_within(range)
    }

    /// Bytes of the small heap asked for, now and at most.
    pub fn small_use(&self) -> (u64, u64) {
        (self.small_used.load(Ordering::Relaxed), self.small_peak.load(Ordering::Relaxed))
    }

    /// Requests so far: those that were refused and those that made a block longer, too.
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    fn is_small(&self, address: u64) -> bool {
        (self.small_start.load(Ordering::Acquire)..self.small_end.load(Ordering::Acquire)).contains(&address)
    }
}

// SAFETY: a block comes from the buddy heap or from a hole of free memory, is of the size and alignment asked
// for, and is nobody else's until it is given back, to where its address says it came from.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        if layout.size() < LARGE {
            let block = self.small.lock().alloc(layout);
            if let Ok(block) = block {
                let bytes = layout.size() as u64;
                let used = self.small_used.fetch_add(bytes, Ordering::Relaxed) + bytes;
                self.small_peak.fetch_max(used, Ordering::Relaxed);
                return block.as_ptr();
            }
        }
        let start = self.large.lock().take(layout.size() as u64, layout.align() as u64);
        start.map_or(core::ptr::null_mut(), |start| start as *mut u8)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as u64;
        if self.is_small(address) {
            if let Some(block) = core::ptr::NonNull::new(block) {
                // SAFETY: the caller gives back what `alloc` took from this heap with this layout.
                unsafe { self.small.lock().dealloc(block, layout) };
                self.small_used.fetch_sub(layout.size() as u64, Ordering::Relaxed);
            }
        } else {
            self.large.lock().give(address..address + layout.size() as u64);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let address = block as u64;
        if !self.is_small(address) && new_size >= LARGE {
            let piece = address..address + layout.size() as u64;
            if new_size <= layout.size() {
                let kept = (address + new_size as u64).next_multiple_of(LINE);
                let end = piece.end.next_multiple_of(LINE);
                if kept < end {
                    self.large.lock().give(kept..end);
                }
                return block;
            }
            if self.large.lock().extend(piece, new_size as u64) {
                self.allocations.fetch_add(1, Ordering::Relaxed);
                return block;
            }
        }
        // SAFETY: the caller's layout is valid and the new size not zero, which is what `realloc` demands.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: two blocks, one new, both at least as long as the shorter size.
            unsafe {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init)] // a list of one bank
    use super::*;
    use std::vec::Vec as List;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_is_cut_out_and_the_rest_is_in_whole_pages() {
        let banks = [0x4000_0000..0x8000_0000, 0..0x3b40_0000, 0x3b40_0000..0x3c00_0000];
        let taken = [0..0x1000, 0x8_0000..0x28_0001, 0x0800_0000..0x0812_3456, 0x3c00_0000..0x4000_0000];
        let free = free_ranges(&banks, &taken);
        assert_eq!(
            free[..],
            [0x1000..0x8_0000, 0x28_1000..0x0800_0000, 0x0812_4000..0x3c00_0000, 0x4000_0000..0x8000_0000]
        );
    }

    #[test]
    fn taken_ranges_that_overlap_or_cover_all_leave_nothing_behind() {
        assert!(free_ranges(&[0x1000..0x3000], &[0..0x10_0000]).is_empty());
        assert_eq!(free_ranges(&[0..0x4000], &[0..0x1001, 0x1000..0x2fff])[..], [0x3000..0x4000]);
        assert!(free_ranges(&[5..0xfff], &[]).is_empty());
        assert_eq!(free_ranges(&[0..0x4000], &[u64::MAX - 1..u64::MAX])[..], [0..0x4000]);
    }

    #[test]
    fn pieces_are_aligned_and_never_a_power_of_two_apart() {
        let mut holes = Holes::new();
        holes.give(0..1024 * MIB);
        let starts: List<u64> = (0..8).map(|_| holes.take(32 * MIB, 64).unwrap()).collect();
        for (index, start) in starts.iter().enumerate() {
            assert!(start.is_multiple_of(64));
            for other in &starts[index + 1..] {
                assert!(!(other - start).is_power_of_two());
                assert!(other - start > 32 * MIB);
            }
        }
        assert_eq!(holes.take(1, 2 * MIB).unwrap() % (2 * MIB), 0);
    }

    #[test]
    fn all_comes_back_whatever_the_order() {
        let mut holes = Holes::new();
        holes.give(MIB..101 * MIB);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let pieces: List<u64> = (0..4).map(|i| holes.take((i + 1) * MIB + 1, 64).unwrap()).collect();
            assert!(holes.free() < 91 * MIB);
            for i in order {
                holes.give(pieces[i]..pieces[i] + (i as u64 + 1) * MIB + 1);
            }
            assert_eq!(holes.holes[..], [MIB..101 * MIB]);
        }
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_and_the_last_byte_can_be_had() {
        let mut holes = Holes::new();
        holes.give(MIB..3 * MIB);
        assert_eq!(holes.take(2 * MIB + 1, 64), None);
        assert_eq!(holes.take(u64::MAX, 64), None);
        assert_eq!(holes.take(2 * MIB, 64), Some(MIB));
        assert_eq!(holes.take(1, 64), None);
        assert_eq!(holes.free(), 0);
    }

    #[test]
    fn what_fits_in_sum_may_not_fit_in_pieces() {
        let board = [36 * MIB..948 * MIB, 1024 * MIB..2048 * MIB];
        assert!(hold(&board, &[1000 * MIB, 400 * MIB, 400 * MIB]));
        assert!(hold(&board, &[1025 * MIB]), "in both");
        assert!(!hold(&board, &[1000 * MIB, 500 * MIB, 500 * MIB]));
        assert!(hold(&board, &[0, 1, MIB - 1]));
        assert!(!hold(&[], &[MIB]));
    }

    /// A Raspberry Pi 4's RAM with 8 GB, as it is free.
    const PI4_8G: [Range<u64>; 3] = [36 * MIB..948 * MIB, 1024 * MIB..4032 * MIB, 4096 * MIB..8192 * MIB];

    fn holes_of(ranges: &[Range<u64>]) -> Holes {
        let mut holes = Holes::new();
        ranges.iter().for_each(|range| holes.give(range.clone()));
        holes.join(Joined::of(ranges));
        holes
    }

    #[test]
    fn a_piece_that_no_stretch_holds_lies_in_several_and_all_of_it_comes_back() {
        let mut holes = holes_of(&PI4_8G);
        let all = holes.free();
        let small = holes.take(4000 * MIB, 64).unwrap();
        assert!(PI4_8G[2].contains(&small), "one stretch is better");
        holes.give(small..small + 4000 * MIB);
        let large = holes.take(7000 * MIB + 1, 64).unwrap();
        assert!(mmu::JOINED.contains(&large) && large.is_multiple_of(64));
        assert_eq!(holes.free(), all - 7000 * MIB - 64);
        let next = holes.take(900 * MIB, 64).unwrap();
        assert!(PI4_8G[2].contains(&next), "behind it");
        assert_eq!(holes.take(200 * MIB, 64), None);
        holes.give(large..large + 7000 * MIB + 1);
        holes.give(next..next + 900 * MIB);
        assert_eq!(holes.holes[..], PI4_8G);
    }

    #[test]
    fn parts_of_a_joined_piece_are_free_ram_each_once() {
        let mut holes = holes_of(&PI4_8G);
        let piece = holes.take(5000 * MIB, 64).unwrap();
        let parts: List<_> = holes.joined.parts(piece..piece + 5000 * MIB).collect();
        assert_eq!(parts.iter().map(|part| part.end - part.start).sum::<u64>(), 5000 * MIB);
        assert_eq!(parts.len(), 3);
        assert_eq!((parts[0].end, parts[1].clone()), (948 * MIB, PI4_8G[1].clone()));
        assert_eq!(parts[2].start, 4096 * MIB);
        for part in &parts {
            assert!(!holes.holes.iter().any(|hole| hole.start < part.end && part.start < hole.end));
        }
        // What lies between two stretches that are joined must be free to the border.
        holes.give(piece..piece + 5000 * MIB);
        holes.cut(1, 1024 * MIB..1025 * MIB);
        assert!(holes.take(5000 * MIB, 64).is_some(), "the second and third");
        assert_eq!(holes.take(3000 * MIB, 64), None, "the first and the rest of the third are no neighbours");
    }

    #[test]
    fn one_stretch_and_crumbs_are_not_joined() {
        assert_eq!(Joined::of(&[0x1000..0x8_0000, 40 * MIB..948 * MIB]).views().count(), 0);
        assert_eq!(Joined::of(&PI4_8G).views().count(), 3);
        let uneven = Joined::of(&[5..200 * MIB - 1, 300 * MIB + 1..500 * MIB]);
        let views: List<_> = uneven.views().collect();
        assert_eq!(views[0], (mmu::JOINED.start..mmu::JOINED.start + 196 * MIB, 2 * MIB..198 * MIB));
        assert_eq!(views[1].0.start, views[0].0.end);
        assert_eq!(views[1].1, 302 * MIB..500 * MIB);
    }

    #[test]
    fn a_piece_grows_in_place_only_into_free_memory() {
        let mut holes = Holes::new();
        holes.give(0..10 * MIB);
        let piece = holes.take(MIB, 64).unwrap();
        assert!(holes.extend(piece..piece + MIB, 2 * MIB));
        let next = holes.take(MIB, 64).unwrap();
        assert!(next >= piece + 2 * MIB);
        assert!(!holes.extend(piece..piece + 2 * MIB, 4 * MIB));
        holes.give(next..next + MIB);
        assert!(holes.extend(piece..piece + 2 * MIB, 4 * MIB));
    }

    #[test]
    fn the_allocator_serves_small_large_and_neither() {
        let memory: &'static mut [u64] = std::vec![0_u64; 3 << 20].leak();
        let start = memory.as_ptr() as u64;
        let allocator = Allocator::new();
        let range = start.next_multiple_of(4096)..(start + (24 << 20)) & !4095;
        // SAFETY: leaked memory of the test's own.
        let heap = unsafe { allocator.start(core::slice::from_ref(&range), Joined::none()) };
        assert!(heap.end - heap.start <= 6 << 20);
        let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: blocks are used within their size and given back once, with their layout.
        unsafe {
            let small = allocator.alloc(layout(100));
            assert!(heap.contains(&(small as u64)));
            assert_eq!(allocator.small_use(), (100, 100));
            let free = allocator.large_free();
            let large = allocator.alloc(layout(2 << 20));
            assert!(!heap.contains(&(large as u64)) && (large as u64).is_multiple_of(64));
            large.write(7);
            let grown = allocator.realloc(large, layout(2 << 20), 4 << 20);
            assert_eq!((grown, grown.read()), (large, 7));
            let shrunk = allocator.realloc(grown, layout(4 << 20), 100);
            assert!(heap.contains(&(shrunk as u64)));
            assert_eq!(shrunk.read(), 7);
            assert_eq!(allocator.large_free(), free);
            assert!(allocator.alloc(layout(1 << 30)).is_null());
            allocator.dealloc(shrunk, layout(100));
            allocator.dealloc(small, layout(100));
            assert_eq!(allocator.small_use(), (0, 200));
            assert_eq!(allocator.allocations(), 5, "two blocks, two of them changed in length, one refused");
        }
    }
}
