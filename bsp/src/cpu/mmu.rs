//! Memory: page tables built in ordinary memory, and cache maintenance.
//!
//! One identity map, 39-bit addresses, 4 KiB granule; above it, in [`JOINED`], the stretches of RAM once more, one right
//! behind the other. RAM is mapped in 2 MiB blocks, which the TLBs of both boards hold at every level, and which a
//! Cortex-A72's prefetcher runs through (at 4 KiB pages it stops at each); where neighbours need different rights, such as
//! the image with its guard pages, a block is split into 4 KiB pages. What is not mapped faults.
//!
//! Sources: Arm DDI 0487, D8 "The AArch64 Virtual Memory System Architecture"; Cortex-A72 TRM (100095) 5.2.3 and 7.4,
//! Cortex-A76 TRM (100798) A5.2.
#![allow(unsafe_code)] // cache maintenance and the switch of tables are instructions

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a block: an entry of a second table.
pub const BLOCK: u64 = 2 << 20;
/// Bytes an entry of the first table covers, a block of its own where all of them have the same rights.
pub const GIB: u64 = 1 << 30;
/// Entries of a table.
const ENTRIES: usize = 512;
/// First address beyond those that can be mapped.
const END: u64 = GIB * ENTRIES as u64;
/// Smallest piece the data cache keeps, on all boards.
const LINE: usize = 64;

/// Addresses at which RAM that lies in several stretches can be had in one: above RAM and devices of every board. No device
/// knows them: [`behind`] tells what to hand to one.
pub const JOINED: Range<u64> = 0x60_0000_0000..0x7c_0000_0000;

/// MAIR_EL1: attribute 0 normal write-back read- and write-allocate, 1 device nGnRnE, 2 normal non-cacheable.
pub const MAIR: u64 = 0x0044_00ff;
/// SCTLR_EL1 with the final tables: MMU (0), D-cache (2), stack alignment (3), I-cache (12), writable implies
/// execute-never (19), and the bits that ARMv8.0 wants at one (11, 20, 22, 23, 28, 29).
pub const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

const VALID: u64 = 1;
const TABLE: u64 = 1 << 1; // in tables 1 and 2: points to the next; in table 3: a page
const DEVICE: u64 = 1 << 2; // attribute index 1 of MAIR
const UNCACHED: u64 = 2 << 2; // attribute index 2
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const KERNEL_EXECUTE_NEVER: u64 = 1 << 53;
const USER_EXECUTE_NEVER: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What may be done with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and written, not executed.
    Data,
    /// Read only.
    Constants,
    /// Executed and read.
    Code,
    /// Memory that a device reads behind the caches' back: written past them, gathered into long bursts.
    Uncached,
    /// Device registers.
    Device,
}

impl Access {
    /// A block's descriptor, without its address.
    pub fn bits(self) -> u64 {
        let normal = VALID | ACCESSED | INNER_SHAREABLE | USER_EXECUTE_NEVER;
        match self {
            Self::Data => normal | KERNEL_EXECUTE_NEVER,
            Self::Constants => normal | READ_ONLY | KERNEL_EXECUTE_NEVER,
            Self::Code => normal | READ_ONLY,
            Self::Uncached => normal | UNCACHED | KERNEL_EXECUTE_NEVER,
            Self::Device => VALID | ACCESSED | DEVICE | USER_EXECUTE_NEVER | KERNEL_EXECUTE_NEVER,
        }
    }
}

/// Why a range can't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Not on page borders, empty, or beyond 512 GiB.
    BadRange,
    /// All tables are used.
    Full,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRange => "a memory range is not on page borders or lies beyond 512 GiB",
            Self::Full => "memory is in too many pieces for the page tables",
        })
    }
}

/// A page of 512 descriptors.
#[repr(C, align(4096))]
pub struct Table([AtomicU64; ENTRIES]);

impl Table {
    const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }
    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }
    fn set(&self, index: usize, entry: u64) {
        self.0[index].store(entry, Ordering::Relaxed);
    }
}

/// Page tables: the first is where a walk starts, the others are handed out as needed.
///
/// Tables refer to each other by address, so this must stay where it is: it is made as a `static`.
#[repr(C, align(4096))]
pub struct Tables<const N: usize> {
    tables: [Table; N],
    /// Tables handed out behind the first: all zeros at the start, so that the image does not carry them.
    more: AtomicU64,
}

impl<const N: usize> Default for Tables<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Tables<N> {
    /// Tables that map nothing.
    pub const fn new() -> Self {
        Self { tables: [const { Table::empty() }; N], more: AtomicU64::new(0) }
    }

    /// Where the walk starts: TTBR0_EL1.
    pub fn root(&'static self) -> u64 {
        self.address(0)
    }

    /// Tables in use.
    pub fn used(&self) -> usize {
        self.more.load(Ordering::Relaxed) as usize + 1
    }

    fn address(&self, index: usize) -> u64 {
        (&raw const self.tables[index]) as u64
    }

    /// The table an entry points to.
    fn follow(&self, entry: u64) -> &Table {
        let index = ((entry & ADDRESS) - self.address(0)) / PAGE;
        &self.tables[index as usize]
    }

    /// An empty table.
    fn fresh(&self) -> Result<(u64, &Table), MapError> {
        let index = self.used();
        let table = self.tables.get(index).ok_or(MapError::Full)?;
        self.more.store(index as u64, Ordering::Relaxed);
        Ok((self.address(index) | VALID | TABLE, table))
    }

    /// Maps `range` onto itself; parts mapped before get the new rights.
    ///
    /// Only for tables that no core walks yet: a live block must not be split in place.
    pub fn map(&'static self, range: Range<u64>, access: Access) -> Result<(), MapError> {
        self.set(range, 0, access.bits())
    }

    /// Maps a range of addresses onto as many bytes of memory from `memory` on.
    pub fn map_onto(&'static self, range: Range<u64>, memory: u64, access: Access) -> Result<(), MapError> {
        if !memory.is_multiple_of(PAGE) || memory.checked_add(range.end.saturating_sub(range.start)).is_none()
        {
            return Err(MapError::BadRange);
        }
        self.set(range.clone(), memory.wrapping_sub(range.start), access.bits())
    }

    /// Takes `range` out, so that touching it faults.
    pub fn forbid(&'static self, range: Range<u64>) -> Result<(), MapError> {
        self.set(range, 0, 0)
    }

    /// Gives the addresses of `range` these bits, and what lies `behind` them: the distance to memory, modulo 2^64.
    fn set(&'static self, range: Range<u64>, behind: u64, bits: u64) -> Result<(), MapError> {
        let misaligned = !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE);
        if range.is_empty() || misaligned || range.end > END {
            return Err(MapError::BadRange);
        }
        let mut at = range.start;
        while at < range.end {
            let first = &self.tables[0];
            let slot = (at / GIB) as usize;
            let entry = first.get(slot);
            let is_table = entry & (VALID | TABLE) == VALID | TABLE;
            let whole = at.is_multiple_of(GIB) && behind.is_multiple_of(GIB);
            if whole && range.end - at >= GIB && !is_table {
                first.set(slot, if bits == 0 { 0 } else { at.wrapping_add(behind) | bits });
                at += GIB;
                continue;
            }
            let second = if is_table {
                self.follow(entry)
            } else {
                let (pointer, table) = self.fresh()?;
                if entry != 0 {
                    for block in 0..ENTRIES {
                        table.set(block, entry + block as u64 * BLOCK);
                    }
                }
                first.set(slot, pointer);
                table
            };
            let slot = (at % GIB / BLOCK) as usize;
            let entry = second.get(slot);
            let is_table = entry & (VALID | TABLE) == VALID | TABLE;
            let blocks = at.is_multiple_of(BLOCK) && behind.is_multiple_of(BLOCK);
            if blocks && range.end - at >= BLOCK && !is_table {
                second.set(slot, if bits == 0 { 0 } else { at.wrapping_add(behind) | bits });
                at += BLOCK;
                continue;
            }
            let third = if is_table {
                self.follow(entry)
            } else {
                let (pointer, table) = self.fresh()?;
                if entry != 0 {
                    for page in 0..ENTRIES {
                        table.set(page, (entry + page as u64 * PAGE) | TABLE);
                    }
                }
                second.set(slot, pointer);
                table
            };
            let stop = range.end.min((at / BLOCK + 1) * BLOCK);
            while at < stop {
                let page = (at % BLOCK / PAGE) as usize;
                third.set(page, if bits == 0 { 0 } else { at.wrapping_add(behind) | bits | TABLE });
                at += PAGE;
            }
        }
        Ok(())
    }

    /// The entry that a walk for `address` ends at; none if it would fault.
    pub fn walk(&'static self, address: u64) -> Option<u64> {
        if address >= END {
            return None;
        }
        let first = self.tables[0].get((address / GIB) as usize);
        if first & VALID == 0 {
            return None;
        }
        if first & TABLE == 0 {
            return Some(first);
        }
        let second = self.follow(first).get((address % GIB / BLOCK) as usize);
        if second & VALID == 0 {
            return None;
        }
        if second & TABLE == 0 {
            return Some(second);
        }
        let third = self.follow(second).get((address % BLOCK / PAGE) as usize);
        (third & VALID != 0).then_some(third)
    }
}

/// The first GiB that the entry code's map has tables of 2 MiB blocks for; beyond, it has blocks of 1 GiB.
const EARLY_GIB: u64 = 4;

/// Entries by which device registers come into the entry code's map, and their places in it. It is a table of 1 GiB
/// entries, with those of the first [`EARLY_GIB`] in tables of 2 MiB blocks behind it; a range beyond gets whole GiB. Nothing
/// is read or fetched there but what we ask for: that is what device memory means.
pub fn early_devices(range: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let border = EARLY_GIB * GIB;
    let low = range.start.min(border) & !(BLOCK - 1)..range.end.min(border);
    let high = range.start.max(border) & !(GIB - 1)..range.end.min(END);
    let block = |address: u64| (ENTRIES + (address / BLOCK) as usize, address | Access::Device.bits());
    let gib = |address: u64| ((address / GIB) as usize, address | Access::Device.bits());
    low.step_by(BLOCK as usize).map(block).chain(high.step_by(GIB as usize).map(gib))
}

/// TCR_EL1 for 39-bit addresses through TTBR0 alone, walks cached and inner shareable; the size of physical
/// addresses is what the core has, at most 48 bits.
pub fn translation_control() -> u64 {
    #[cfg(target_os = "none")]
    let physical = {
        use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, Readable};
        ID_AA64MMFR0_EL1.get()
    };
    #[cfg(not(target_os = "none"))]
    let physical = 0;
    control_for(physical)
}

/// [`translation_control`] of a core with this ID_AA64MMFR0_EL1, whose PARange (3:0) is what IPS (34:32) takes: 2 stands
/// for the 40 bits of a Cortex-A76, 4 for the 44 of an A72.
fn control_for(features: u64) -> u64 {
    25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | (features & 0xf).min(5) << 32
}

/// Writes the lines of `bytes` back to memory and drops them: what a device that does not see the caches
/// reads is then what was stored, and the next load sees what it wrote.
///
/// Before the device writes no line may be dirty (it could be written back over the device's data), after it
/// has written no line may be stale: so call this before and after.
pub fn clean_and_invalidate<T>(bytes: &[T]) {
    let range = bytes.as_ptr_range();
    clean_and_invalidate_range(range.start as usize..range.end as usize);
}

/// [`clean_and_invalidate`] by addresses.
pub fn clean_and_invalidate_range(range: Range<usize>) {
    let (start, end) = (range.start, range.end);
    super::publish(); // not before the device was seen to be done
    #[cfg(target_os = "none")]
    for line in (start & !(LINE - 1)..end).step_by(LINE) {
        // SAFETY: nothing is lost: a dirty line is written back before it is dropped.
        unsafe { core::arch::asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    #[cfg(not(target_os = "none"))]
    let _ = (start, end, LINE);
    super::publish();
}

/// Writes the lines of `bytes` back to memory, where a core with its caches off can read them.
pub fn clean<T>(bytes: &[T]) {
    let range = bytes.as_ptr_range();
    clean_range(range.start as usize..range.end as usize);
}

/// [`clean`] by addresses.
pub fn clean_range(range: Range<usize>) {
    #[cfg(target_os = "none")]
    for line in (range.start & !(LINE - 1)..range.end).step_by(LINE) {
        // SAFETY: cleaning changes no value that a core can see.
        unsafe { core::arch::asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    #[cfg(not(target_os = "none"))]
    (range.start & !(LINE - 1)..range.end).step_by(LINE).for_each(|line| crate::machine::here().clean(line));
    super::publish();
}

/// Makes `tables` this core's map, in place of the one it was started with.
///
/// Both are identity maps, but blocks of the old one are pages in the new, which a live TLB must not see side
/// by side: so the MMU is off for the few instructions in between, which touch no memory but their own.
///
/// # Safety
/// `tables` must map the code, the stacks, all live data and the devices in use, with code executable.
pub unsafe fn switch<const N: usize>(tables: &'static Tables<N>) {
    #[cfg(target_os = "none")]
    // SAFETY: the caller vouches for the tables. With the MMU off instructions are fetched from the same
    // addresses; no load or store happens until it is on again.
    unsafe {
        core::arch::asm!(
            "dsb sy",
            "mrs {saved}, sctlr_el1",
            "and {off}, {saved}, #0xfffffffffffffffe", // M
            "and {off}, {off}, #0xfffffffffffffffb",   // C
            "msr sctlr_el1, {off}",
            "isb",
            "msr ttbr0_el1, {root}",
            "msr mair_el1, {mair}",
            "msr tcr_el1, {control}",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            "msr sctlr_el1, {on}",
            "isb",
            "ic iallu",
            "dsb nsh",
            "isb",
            saved = out(reg) _,
            off = out(reg) _,
            root = in(reg) tables.root(),
            mair = in(reg) MAIR,
            control = in(reg) translation_control(),
            on = in(reg) SCTLR,
            options(nostack),
        );
    }
    #[cfg(not(target_os = "none"))]
    let _ = (tables, MAIR, SCTLR);
}

/// Where memory is that we have at these addresses, as devices count: the same, but for what is [`JOINED`]. None if it is not
/// in one piece there, or not mapped.
pub fn behind(range: Range<usize>) -> Option<Range<usize>> {
    if range.end as u64 <= JOINED.start || range.is_empty() {
        return Some(range);
    }
    let (first, last) = (physical(range.start)?, physical(range.end - 1)?);
    // Each stretch is at a distance of its own from where it is seen.
    (last.checked_sub(first)? == range.len() - 1).then(|| first..last + 1)
}

/// What a load from this address would read from, by the core's own walk.
fn physical(address: usize) -> Option<usize> {
    #[cfg(target_os = "none")]
    {
        let result: u64;
        // SAFETY: a walk on our behalf changes nothing but PAR_EL1, which nothing else uses.
        unsafe {
            core::arch::asm!(
                "at s1e1r, {}", "isb", "mrs {}, par_el1",
                in(reg) address, out(reg) result,
                options(nostack, preserves_flags),
            );
        }
        let failed = result & 1 == 1;
        (!failed).then_some((result & ADDRESS) as usize | address & (PAGE as usize - 1))
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = address;
        None
    }
}

/// Makes all cores forget what they knew of the page at `address`, after [`Tables::forbid`].
pub fn forget(address: u64) {
    #[cfg(target_os = "none")]
    // SAFETY: an entry that is looked up again is the one in the tables.
    unsafe {
        core::arch::asm!(
            "dsb ishst",
            "tlbi vaae1is, {}",
            "dsb ish",
            "isb",
            in(reg) address >> 12,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_os = "none"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn tables<const N: usize>() -> &'static Tables<N> {
        Box::leak(Box::new(Tables::new()))
    }

    const RIGHTS: u64 = !ADDRESS & !TABLE;

    #[test]
    fn ram_is_mapped_in_blocks_onto_itself() {
        let map = tables::<4>();
        map.map(0..0x3b40_0000, Access::Data).unwrap();
        assert_eq!(map.used(), 2);
        let entry = map.walk(0x3b3f_ffff).unwrap();
        assert_eq!(entry & ADDRESS, 0x3b20_0000);
        assert_eq!(entry & TABLE, 0);
        assert_eq!(entry & RIGHTS, Access::Data.bits());
        assert_eq!(map.walk(0x3b40_0000), None);
    }

    #[test]
    fn whole_gib_need_no_tables_until_rights_change_within() {
        let map = tables::<4>();
        map.map(GIB..400 * GIB, Access::Data).unwrap();
        assert_eq!(map.used(), 1);
        let entry = map.walk(300 * GIB + 12345).unwrap();
        assert_eq!((entry & ADDRESS, entry & TABLE, entry & RIGHTS), (300 * GIB, 0, Access::Data.bits()));
        assert_eq!((map.walk(GIB - 1), map.walk(400 * GIB)), (None, None));
        // A block, and a page of another, have other rights; all around stays as it was.
        map.map(7 * GIB + BLOCK..7 * GIB + 2 * BLOCK, Access::Constants).unwrap();
        map.forbid(7 * GIB + 5 * PAGE..7 * GIB + 6 * PAGE).unwrap();
        assert_eq!(map.used(), 3);
        let rights = |address| map.walk(address).map(|entry| (entry & ADDRESS, entry & RIGHTS));
        assert_eq!(rights(7 * GIB + BLOCK), Some((7 * GIB + BLOCK, Access::Constants.bits())));
        assert_eq!(rights(7 * GIB + 5 * PAGE), None);
        for address in [7 * GIB, 7 * GIB + 6 * PAGE, 7 * GIB + 2 * BLOCK, 8 * GIB - BLOCK] {
            assert_eq!(rights(address), Some((address, Access::Data.bits())));
        }
        assert_eq!(rights(8 * GIB), Some((8 * GIB, Access::Data.bits())));
        // Elsewhere, too, where both lie on such borders; and a whole GiB is taken out again.
        map.map_onto(JOINED.start..JOINED.start + 3 * GIB, 2 * GIB, Access::Data).unwrap();
        assert_eq!(rights(JOINED.start + GIB + 1), Some((3 * GIB, Access::Data.bits())));
        map.forbid(9 * GIB..10 * GIB).unwrap();
        assert_eq!((rights(9 * GIB), map.used()), (None, 3));
    }

    #[test]
    fn rights_differ_page_by_page_within_a_block() {
        let map = tables::<4>();
        map.map(0..4 * BLOCK, Access::Data).unwrap();
        map.map(0x8_0000..0x9_0000, Access::Code).unwrap();
        map.map(0x9_0000..0xa_0000, Access::Constants).unwrap();
        map.forbid(0xb_0000..0xb_1000).unwrap();
        let rights = |address| map.walk(address).map(|entry| (entry & ADDRESS, entry & RIGHTS));
        assert_eq!(rights(0x7_f000), Some((0x7_f000, Access::Data.bits())));
        assert_eq!(rights(0x8_0000), Some((0x8_0000, Access::Code.bits())));
        assert_eq!(rights(0x9_ffff), Some((0x9_f000, Access::Constants.bits())));
        assert_eq!(rights(0xb_0000), None);
        assert_eq!(rights(0xb_1000), Some((0xb_1000, Access::Data.bits())));
        assert_eq!(rights(BLOCK), Some((BLOCK, Access::Data.bits())));
        assert_eq!(map.used(), 3);
    }

    #[test]
    fn nothing_is_writable_and_executable_and_no_device_is_executable() {
        for access in [Access::Data, Access::Constants, Access::Code, Access::Uncached, Access::Device] {
            let bits = access.bits();
            let (writable, executable) = (bits & READ_ONLY == 0, bits & KERNEL_EXECUTE_NEVER == 0);
            assert!(!(writable && executable), "{access:?}");
        }
        assert_eq!(Access::Device.bits() & DEVICE, DEVICE);
        // The three bits are an index into MAIR, of eight bits an entry.
        let attribute = |access: Access| (MAIR >> ((access.bits() >> 2 & 7) * 8)) & 0xff;
        assert_eq!([Access::Data, Access::Device, Access::Uncached].map(attribute), [0xff, 0x00, 0x44]);
    }

    #[test]
    fn a_bank_that_ends_within_a_block_is_finished_with_pages() {
        let map = tables::<8>();
        map.map(GIB..GIB + BLOCK + 3 * PAGE, Access::Data).unwrap();
        assert!(map.walk(GIB + BLOCK + 3 * PAGE - 1).is_some());
        assert!(map.walk(GIB + BLOCK + 3 * PAGE).is_none());
    }

    #[test]
    fn every_boards_devices_are_device_memory_and_within_reach() {
        for board in crate::board::BOARDS {
            let map = tables::<16>();
            for range in board.peripherals {
                map.map(range.clone(), Access::Device).unwrap();
            }
            for address in [board.pl011.0, board.gic.0, board.gic.1] {
                let entry = map.walk(address).unwrap();
                assert_eq!(entry & RIGHTS, Access::Device.bits(), "{} {address:#x}", board.name);
                assert_eq!(entry & ADDRESS, address & !(BLOCK - 1));
            }
        }
    }

    /// Where a walk of the entry code's map ends.
    fn early_walk(entries: &[(usize, u64)], address: u64) -> Option<u64> {
        let entry = |place: usize| entries.iter().find(|(at, _)| *at == place).map(|(_, entry)| *entry);
        match address / GIB {
            gib @ 0..EARLY_GIB => entry(512 + (gib * 512 + address % GIB / BLOCK) as usize),
            gib => entry(gib as usize),
        }
    }

    #[test]
    fn the_entry_codes_map_reaches_every_boards_devices_and_only_them_below_4_gib() {
        for board in crate::board::BOARDS {
            let entries: std::vec::Vec<_> =
                board.peripherals.iter().cloned().flat_map(early_devices).collect();
            for range in board.peripherals {
                for address in [range.start, range.end - 4] {
                    let entry = early_walk(&entries, address)
                        .unwrap_or_else(|| panic!("{} {address:#x}", board.name));
                    assert_eq!(entry & RIGHTS, Access::Device.bits());
                    let size = if address < EARLY_GIB * GIB { BLOCK } else { GIB };
                    assert_eq!(entry & ADDRESS, address & !(size - 1));
                }
            }
            assert!(entries.iter().all(|&(place, _)| (EARLY_GIB as usize..512 * 5).contains(&place)));
            assert_eq!(early_walk(&entries, 0x8_0000), None, "RAM");
        }
    }

    #[test]
    fn a_device_range_over_the_border_of_4_gib_gets_both_kinds_of_block() {
        let entries: std::vec::Vec<_> = early_devices(0xffe0_0000..0x1_0010_0000).collect();
        let device = Access::Device.bits();
        assert_eq!(entries, [(512 + 2047, 0xffe0_0000 | device), (4, 0x1_0000_0000 | device)]);
        assert_eq!(early_devices(0..0).count(), 0);
    }

    #[test]
    fn physical_addresses_are_as_long_as_the_core_has_them() {
        let bits = |features| control_for(features) >> 32;
        assert_eq!(bits(0x1122), 0b010, "Cortex-A76: 40 bits");
        assert_eq!(bits(0x1124), 0b100, "Cortex-A72: 44 bits");
        assert_eq!(bits(0x1126), 0b101, "52 bits need other tables");
        assert_eq!(control_for(0) & 0x3f, 25, "39 bits of address");
    }

    #[test]
    fn memory_can_be_had_at_other_addresses_in_blocks_where_both_lie_on_borders_of_blocks() {
        let map = tables::<8>();
        let at = JOINED.start;
        map.map_onto(at..at + 2 * BLOCK, 0x3_4000_0000, Access::Data).unwrap();
        map.map_onto(at + 2 * BLOCK..at + 3 * BLOCK, 0x4000_1000, Access::Data).unwrap();
        let entry = |address| map.walk(address).map(|entry| (entry & ADDRESS, entry & TABLE != 0));
        assert_eq!(entry(at + BLOCK + 5), Some((0x3_4020_0000, false)));
        assert_eq!(entry(at + 2 * BLOCK + PAGE), Some((0x4000_2000, true)));
        assert_eq!(entry(at + 3 * BLOCK), None);
        assert_eq!(map.map_onto(at..at + PAGE, 1, Access::Data), Err(MapError::BadRange));
        assert_eq!(map.map_onto(at..at + 2 * PAGE, !0xfff, Access::Data), Err(MapError::BadRange));
        for board in crate::board::BOARDS {
            for range in board.peripherals {
                assert!(range.end <= JOINED.start || JOINED.end <= range.start, "{}", board.name);
            }
        }
    }

    #[test]
    fn only_what_is_joined_is_elsewhere_for_a_device() {
        assert_eq!(behind(0x1_4000_0000..0x1_4000_1000), Some(0x1_4000_0000..0x1_4000_1000));
        assert_eq!(behind(5..5), Some(5..5));
        let joined = JOINED.start as usize;
        assert_eq!(behind(joined..joined + 64), None, "no core of ours walks on a PC");
    }

    #[test]
    fn bad_ranges_and_full_tables_are_errors() {
        let map = tables::<2>();
        assert_eq!(map.map(1..PAGE, Access::Data), Err(MapError::BadRange));
        assert_eq!(map.map(PAGE..PAGE, Access::Data), Err(MapError::BadRange));
        assert_eq!(map.map(0..END + PAGE, Access::Data), Err(MapError::BadRange));
        assert_eq!(map.map(0..PAGE, Access::Data), Err(MapError::Full));
        assert_eq!(map.walk(u64::MAX), None);
    }
}
