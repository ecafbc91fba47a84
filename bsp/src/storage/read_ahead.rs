//! The blocks of a card: for `embedded-sdmmc` one at a time, for whoever reads a file in long transfers.
//!
//! A big piece of a file goes straight into the caller's memory, each run of neighbouring clusters by one
//! multi-block command ([`ReadAhead::read_file`]). For everything smaller, two windows of memory hold what was last
//! read: one for the allocation tables (and the root directory of FAT16), one for the clusters, so that neither
//! evicts the other. A data window is filled by one command which follows the file: it looks ahead in the allocation
//! table and ends where the clusters stop being neighbours, so nothing is read that is not of the same chain. It
//! starts at 64 KiB and doubles while reads are sequential, up to the memory given.
//!
//! `embedded-sdmmc` trusts what it reads; a hostile or damaged card must not make it panic or hang. So
//! it is shown a card of our making: block 0 is a partition table with one entry, block 1 the boot
//! sector that [`Layout`] has checked, followed by a sound information sector; the rest is the volume.
//! Chains are walked here ([`ReadAhead::check_chain`]) before it may follow them, and directory entries
//! that it cannot take are hidden from it ([`NameCheck`]).

use core::cell::RefCell;
use core::fmt;
use core::ops::DerefMut;

use embedded_sdmmc::{Block, BlockCount, BlockIdx};

use super::layout::{BLOCK_U32, Layout};
use crate::drivers::BlockDevice;
use crate::drivers::sd_card::{BLOCK, CardError};

/// Blocks of the first transfer after a jump: 64 KiB.
const FIRST: usize = 128;
/// Blocks from which on a piece of a file is read without a window: 32 KiB take a card some 1.3 ms at 25 MB/s, a
/// command some 0.2 ms.
const DIRECT: usize = 64;
/// The presented card has its partition table in front of the volume.
const SHIFT: u32 = 1;

/// A piece of the volume in memory.
struct Window<B> {
    buffer: B,
    first: u32,
    blocks: usize,
}

impl<B: DerefMut<Target = [u8]>> Window<B> {
    fn new(buffer: B) -> Self {
        Self { buffer, first: 0, blocks: 0 }
    }

    fn capacity(&self) -> usize {
        self.buffer.len() / BLOCK
    }

    fn get(&self, block: u32) -> Option<&[u8]> {
        let at = block.checked_sub(self.first)? as usize;
        (at < self.blocks).then(|| &self.buffer[at * BLOCK..(at + 1) * BLOCK])
    }

    /// Fills it from `block` of the volume on; empty after an error.
    fn load<D: BlockDevice>(
        &mut self,
        device: &mut D,
        start: u64,
        block: u32,
        blocks: usize,
    ) -> Result<(), CardError> {
        self.blocks = 0;
        device.read(start + u64::from(block), &mut self.buffer[..blocks * BLOCK])?;
        (self.first, self.blocks) = (block, blocks);
        Ok(())
    }
}

/// Copies as much as there is room for.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let bytes = from.len().min(to.len());
    to[..bytes].copy_from_slice(&from[..bytes]);
    bytes
}

/// What an entry of the allocation table says about a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Next(u32),
    End,
    Free,
    Bad,
    Outside(u32),
}

/// Why a chain of clusters cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// It comes back to itself.
    Loop,
    /// It ends before the size of the file is reached.
    Short {
        /// Clusters it has.
        have: u32,
        /// Clusters the size asks for.
        need: u32,
    },
    /// It leads to a cluster that does not exist.
    Outside {
        /// Its number.
        cluster: u32,
    },
    /// It leads to a cluster that is marked free.
    Free,
    /// It leads to a cluster that is marked bad.
    Bad,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Loop => f.write_str("its chain of clusters is a loop"),
            Self::Short { have, need } => write!(f, "it has {have} of the {need} clusters its size needs"),
            Self::Outside { cluster } => {
                write!(f, "its chain leads to cluster {cluster}, which does not exist")
            }
            Self::Free => f.write_str("its chain leads to a free cluster"),
            Self::Bad => f.write_str("its chain leads to a cluster marked bad"),
        }
    }
}

/// A place in a chain of clusters.
#[derive(Clone, Copy)]
struct Cursor {
    /// First cluster of the chain.
    first: u32,
    /// Clusters before this one.
    index: u32,
    cluster: u32,
}

struct State<B, D> {
    device: D,
    layout: Layout,
    boot: [u8; BLOCK],
    table: Window<B>,
    data: Window<B>,
    /// Block that a sequential reader asks for next, when the data window is used up.
    expected: Option<u32>,
    /// Length of the data window before it was cut to the chain.
    length: usize,
    /// Where the last read of a file has got to.
    cursor: Option<Cursor>,
    failed: Option<CardError>,
    names: Option<NameCheck>,
}

/// The device under `embedded-sdmmc`.
pub(super) struct ReadAhead<B, D> {
    state: RefCell<State<B, D>>,
}

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> ReadAhead<B, D> {
    /// `boot` is the boot sector that `layout` was read from; the windows hold at least a block each.
    pub fn new(device: D, layout: Layout, mut boot: [u8; BLOCK], table: B, data: B) -> Self {
        if layout.root.is_some() {
            boot[48..50].copy_from_slice(&1u16.to_le_bytes()); // information sector
        }
        let state = State {
            device,
            layout,
            boot,
            table: Window::new(table),
            data: Window::new(data),
            expected: None,
            length: 0,
            cursor: None,
            failed: None,
            names: None,
        };
        Self { state: RefCell::new(state) }
    }

    /// The error of the device that made the last call fail, or end early without saying so.
    pub fn take_failed(&self) -> Option<CardError> {
        self.state.borrow_mut().failed.take()
    }

    /// Asks the device something.
    pub fn device<R>(&self, ask: impl FnOnce(&D) -> R) -> R {
        ask(&self.state.borrow().device)
    }

    /// Has the device do something.
    pub fn device_mut<R>(&self, act: impl FnOnce(&mut D) -> R) -> R {
        act(&mut self.state.borrow_mut().device)
    }

    /// Forgets what was read: the next reader hears from the card itself.
    pub fn forget(&self) {
        let mut state = self.state.borrow_mut();
        (state.table.blocks, state.data.blocks, state.expected, state.cursor) = (0, 0, None, None);
    }

    /// While on, directory entries that `embedded-sdmmc` cannot take are hidden from it.
    pub fn check_names(&self, on: bool) {
        self.state.borrow_mut().names = on.then(NameCheck::default);
    }

    /// First cluster of the file whose directory entry stands at that place of the presented card.
    pub fn first_cluster(&self, block: BlockIdx, offset: u32) -> Result<u32, CardError> {
        let mut state = self.state.borrow_mut();
        let wide = state.layout.root.is_some();
        let entry = state.block(block.0.saturating_sub(SHIFT))?;
        let half = |at: usize| {
            let at = offset as usize + at;
            entry.get(at..at + 2).map_or(0, |bytes| u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
        };
        Ok(half(26) | if wide { half(20) << 16 } else { 0 })
    }

    /// Follows the chain that starts at `first` to its end. Of a file of `size` bytes, only the
    /// clusters that hold them must be in order.
    pub fn check_chain(&self, first: u32, size: Option<u32>) -> Result<Result<(), ChainFault>, CardError> {
        let mut state = self.state.borrow_mut();
        let clusters = state.layout.clusters;
        let need = size.map_or(1, |size| size.div_ceil(state.layout.cluster * BLOCK_U32));
        let mut link = if state.layout.contains(first) { Link::Next(first) } else { Link::Outside(first) };
        for have in 0..=clusters {
            let fault = match link {
                Link::Next(cluster) => {
                    link = state.link(cluster)?;
                    continue;
                }
                Link::End => ChainFault::Short { have, need },
                Link::Free => ChainFault::Free,
                Link::Bad => ChainFault::Bad,
                Link::Outside(cluster) => ChainFault::Outside { cluster },
            };
            let complete = have >= need && (size.is_some() || link == Link::End);
            return Ok(if complete { Ok(()) } else { Err(fault) });
        }
        Ok(Err(ChainFault::Loop))
    }

    /// Fills `buffer` with the bytes from `offset` on of the file whose chain starts at `first`.
    pub fn read_file(
        &self,
        first: u32,
        offset: u32,
        buffer: &mut [u8],
    ) -> Result<Result<(), ChainFault>, CardError> {
        self.state.borrow_mut().read_file(first, offset, buffer)
    }

    /// First cluster of the root directory, where that is a chain (FAT32).
    pub fn root(&self) -> Option<u32> {
        self.state.borrow().layout.root
    }
}

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> State<B, D> {
    fn read_file(
        &mut self,
        first: u32,
        offset: u32,
        buffer: &mut [u8],
    ) -> Result<Result<(), ChainFault>, CardError> {
        let cluster_bytes = self.layout.cluster * BLOCK_U32;
        let big = buffer.len() >= DIRECT * BLOCK;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let cluster = match self.seek(first, at / cluster_bytes)? {
                Ok(cluster) => cluster,
                Err(fault) => return Ok(Err(fault)),
            };
            let block = self.layout.block_of(cluster) + at % cluster_bytes / BLOCK_U32;
            let skip = (at % BLOCK_U32) as usize;
            let whole = if skip == 0 { rest.len() / BLOCK } else { 0 };
            let taken = match self.data.get(block) {
                Some(bytes) => copy(&bytes[skip..], rest),
                None => match self.run(cluster, block, whole) {
                    // A window would end no later.
                    run if run > 0 && (run >= DIRECT || run < whole) => {
                        let first = self.layout.start + u64::from(block);
                        self.device.read(first, &mut rest[..run * BLOCK])?;
                        run * BLOCK
                    }
                    // The ends of a big piece: the next one, if it follows, needs no more than the half-used block.
                    _ if big && rest.len() != whole * BLOCK => {
                        self.data.load(&mut self.device, self.layout.start, block, 1)?;
                        self.expected = None;
                        copy(&self.data.get(block).unwrap_or(&[])[skip..], rest)
                    }
                    _ => copy(&self.block(block)?[skip..], rest),
                },
            };
            at += u32::try_from(taken).unwrap_or(u32::MAX); // of a file whose size has 32 bits
            rest = &mut rest[taken..];
        }
        Ok(Ok(()))
    }

    /// The cluster with that many before it in its chain.
    fn seek(&mut self, first: u32, index: u32) -> Result<Result<u32, ChainFault>, CardError> {
        if !self.layout.contains(first) {
            return Ok(Err(ChainFault::Outside { cluster: first }));
        }
        let mut cursor = match self.cursor {
            Some(cursor) if cursor.first == first && cursor.index <= index => cursor,
            _ => Cursor { first, index: 0, cluster: first },
        };
        while cursor.index < index {
            let fault = match self.link(cursor.cluster)? {
                Link::Next(cluster) => {
                    cursor = Cursor { first, index: cursor.index + 1, cluster };
                    continue;
                }
                Link::End => ChainFault::Short { have: cursor.index + 1, need: index + 1 },
                Link::Free => ChainFault::Free,
                Link::Bad => ChainFault::Bad,
                Link::Outside(cluster) => ChainFault::Outside { cluster },
            };
            return Ok(Err(fault));
        }
        self.cursor = Some(cursor);
        Ok(Ok(cursor.cluster))
    }

    /// How many blocks from `block` of `cluster` on are neighbours in their chain, up to `limit`.
    fn run(&mut self, mut cluster: u32, block: u32, limit: usize) -> usize {
        let size = self.layout.cluster as usize;
        let mut run = size - (block - self.layout.block_of(cluster)) as usize;
        while run < limit && matches!(self.link(cluster), Ok(Link::Next(next)) if next == cluster + 1) {
            cluster += 1;
            run += size;
        }
        run.min(limit)
    }

    /// One block of the volume.
    fn block(&mut self, block: u32) -> Result<&[u8], CardError> {
        if block < self.layout.data {
            if self.table.get(block).is_none() {
                let left = (self.layout.data - block) as usize;
                let blocks = left.min(self.table.capacity());
                self.table.load(&mut self.device, self.layout.start, block, blocks)?;
            }
            Ok(self.table.get(block).unwrap_or(&[]))
        } else {
            if self.data.get(block).is_none() {
                self.load_data(block)?;
            }
            Ok(self.data.get(block).unwrap_or(&[]))
        }
    }

    /// Fills the data window from `block` on, as far as its chain runs straight.
    fn load_data(&mut self, block: u32) -> Result<(), CardError> {
        let sequential = self.expected == Some(block);
        let want = if sequential { self.length * 2 } else { FIRST }.min(self.data.capacity());
        let (mut cluster, left) = self.layout.cluster_of(block).unwrap_or((0, 1));
        let mut run = left as usize;
        let mut jump = None;
        while run <= want && cluster != 0 {
            match self.link(cluster) {
                Ok(Link::Next(next)) if next == cluster + 1 => {
                    cluster = next;
                    run += self.layout.cluster as usize;
                }
                Ok(Link::Next(next)) => {
                    jump = Some(self.layout.block_of(next));
                    break;
                }
                _ => break, // the end, or something that whoever asks for it will be told
            }
        }
        let first = self.layout.start + u64::from(block);
        let on_card = self.device.blocks().saturating_sub(first).max(1);
        let mut blocks = run.min(want).min(usize::try_from(on_card).unwrap_or(want));
        (self.expected, self.length) = (None, want);
        let mut result = self.data.load(&mut self.device, self.layout.start, block, blocks);
        // An unreadable block further on is no business of this one.
        if let Err(CardError::Read { sector, .. } | CardError::Unreadable { sector, .. }) = result
            && blocks > 1
        {
            let good = usize::try_from(sector.saturating_sub(first)).unwrap_or(1);
            blocks = good.clamp(1, blocks - 1);
            result = self.data.load(&mut self.device, self.layout.start, block, blocks);
        }
        result?;
        let after = u32::try_from(blocks).ok().and_then(|blocks| block.checked_add(blocks));
        self.expected = if run > blocks { after } else { jump };
        Ok(())
    }

    /// What the allocation table says about a cluster that exists.
    fn link(&mut self, cluster: u32) -> Result<Link, CardError> {
        let layout = self.layout;
        let wide = layout.root.is_some();
        let width = if wide { 4 } else { 2 };
        let in_block = BLOCK_U32 / width;
        let at = (cluster % in_block * width) as usize;
        // `Layout` made sure that the table lists every cluster.
        let entry = self.block(layout.table + cluster / in_block)?;
        let value = if wide {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) & 0x0fff_ffff
        } else {
            match u32::from(u16::from_le_bytes([entry[at], entry[at + 1]])) {
                value @ 0xfff0.. => value | 0x0fff_0000,
                value => value,
            }
        };
        Ok(match value {
            0 | 1 => Link::Free,
            0x0fff_fff8.. => Link::End,
            0x0fff_fff7 => Link::Bad,
            next if layout.contains(next) => Link::Next(next),
            next => Link::Outside(next),
        })
    }

    /// One block of the presented card.
    fn present(&mut self, block: u32, into: &mut [u8; BLOCK]) -> Result<(), CardError> {
        let layout = self.layout;
        match block {
            0 => {
                // Partition table: one FAT32 (LBA) partition; the kind is found by counting clusters.
                into.fill(0);
                into[446 + 4] = 0x0c;
                into[446 + 8..446 + 12].copy_from_slice(&SHIFT.to_le_bytes());
                into[446 + 12..446 + 16].copy_from_slice(&layout.blocks.to_le_bytes());
                into[510..].copy_from_slice(&[0x55, 0xaa]);
            }
            1 => into.copy_from_slice(&self.boot),
            2 if layout.root.is_some() => {
                // Information sector that knows nothing: FAT specification, FSInfo.
                into.fill(0);
                into[..4].copy_from_slice(b"RRaA");
                into[484..488].copy_from_slice(b"rrAa");
                into[488..496].fill(0xff);
                into[510..].copy_from_slice(&[0x55, 0xaa]);
            }
            _ => {
                let block = block - SHIFT;
                if block >= layout.blocks {
                    let blocks = layout.start + u64::from(layout.blocks);
                    return Err(CardError::BeyondEnd { sector: layout.start + u64::from(block), blocks });
                }
                into.copy_from_slice(self.block(block)?);
                if block >= layout.table_end
                    && let Some(names) = &mut self.names
                {
                    names.check(into);
                }
            }
        }
        Ok(())
    }
}

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> embedded_sdmmc::BlockDevice for ReadAhead<B, D> {
    type Error = CardError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), CardError> {
        let mut state = self.state.borrow_mut();
        for (block, number) in blocks.iter_mut().zip(start.0..) {
            if let Err(error) = state.present(number, &mut block.contents) {
                state.failed = Some(error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&self, _blocks: &[Block], start: BlockIdx) -> Result<(), CardError> {
        Err(CardError::ReadOnly { sector: u64::from(start.0) })
    }

    fn num_blocks(&self) -> Result<BlockCount, CardError> {
        Ok(BlockCount(self.state.borrow().layout.blocks + SHIFT))
    }
}

/// Hides directory entries, as they pass, that `embedded-sdmmc` cannot take:
/// - half a surrogate pair in a long name that does not find its other half in the next entry: it
///   overruns a buffer of 13 characters there. The entry loses its place in the sequence, so the file
///   appears under its short name;
/// - the volume label, which would be found by a file name of the same eleven letters.
#[derive(Default)]
struct NameCheck {
    /// What the entry before began with, if that is half a pair.
    half: Option<u16>,
    /// The directory has ended; what follows was never written.
    over: bool,
}

impl NameCheck {
    const LONG_NAME: u8 = 0x0f;
    const STARTS: u8 = 0x40;
    const LABEL: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    const DELETED: u8 = 0xe5;

    fn check(&mut self, block: &mut [u8; BLOCK]) {
        for entry in block.chunks_exact_mut(32) {
            self.over |= entry[0] == 0;
            if self.over {
                return;
            }
            let attributes = entry[11];
            if entry[0] == Self::DELETED {
                continue;
            }
            if attributes & Self::LONG_NAME != Self::LONG_NAME {
                if attributes & (Self::LABEL | Self::DIRECTORY) == Self::LABEL {
                    entry[0] = Self::DELETED;
                }
                continue;
            }
            let mut units = [0u16; 13];
            let pairs = entry[1..11].chunks_exact(2).chain(entry[14..26].chunks_exact(2));
            for (unit, pair) in units.iter_mut().zip(pairs.chain(entry[28..32].chunks_exact(2))) {
                *unit = u16::from_le_bytes([pair[0], pair[1]]);
            }
            let length = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
            let units = &units[..length];
            if entry[0] & Self::STARTS != 0 {
                self.half = None;
            }
            let (low, high) = (0xdc00..=0xdfff, 0xd800..=0xdbff);
            let fits = match self.half {
                None => true,
                Some(half) => low.contains(&half) && units.last().is_some_and(|unit| high.contains(unit)),
            };
            self.half = match *units {
                [first, ..] if low.contains(&first) => Some(first),
                [first, second, ..] if high.contains(&first) && !low.contains(&second) => Some(first),
                [first] if high.contains(&first) => Some(first),
                _ => None,
            };
            if !fits {
                entry[0] = 0x20; // no sequence number: the name collected so far is dropped
                self.half = None;
            }
        }
    }
}
