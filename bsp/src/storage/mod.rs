//! Files on a card: FAT16 and FAT32 volumes with long names, read-only, root directory.
//!
//! `embedded-sdmmc` knows directories; [`read_ahead`] feeds it from long transfers, keeps what it cannot take away
//! from it, and reads the files' bytes; [`layout`] finds the volume, with a partition table or without.
//!
//! ```text
//! Volume::open    → embedded-sdmmc (one block at a time) → read_ahead (windows) → BlockDevice (CMD18)
//! Volume::read_at → read_ahead (big pieces straight into the caller's memory)   → BlockDevice (CMD18)
//! ```
//!
//! Offsets and sizes are in bytes.

#![warn(clippy::cast_possible_truncation)] // sizes and places come from the card

mod layout;
mod read_ahead;

use core::cell::Cell;
use core::fmt;
use core::ops::{ControlFlow, DerefMut};

use embedded_sdmmc::{DirEntry, LfnBuffer, RawDirectory, TimeSource, Timestamp, VolumeIdx, VolumeManager};

use crate::drivers::BlockDevice;
use crate::drivers::sd_card::{BLOCK, CardError};
use layout::Layout;
pub use read_ahead::ChainFault;
use read_ahead::ReadAhead;

/// Why a card's files cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// The card failed.
    Card(CardError),
    /// No volume of a known kind.
    NotFormatted,
    /// exFAT, as SDXC cards are sold.
    ExFat,
    /// NTFS.
    Ntfs,
    /// A GUID partition table.
    Gpt,
    /// FAT12, used on volumes of a few megabytes.
    Fat12,
    /// FAT32 on a volume too small for it.
    SmallFat32,
    /// A FAT volume with sectors that are not 512 bytes.
    SectorSize(u16),
    /// Numbers in the boot sector contradict each other.
    BootSector,
    /// The root directory cannot be followed.
    Directory(ChainFault),
    /// A file cannot be followed.
    File(ChainFault),
    /// Something else is wrong with the file system.
    Damaged(&'static str),
    /// No file of that name.
    FileNotFound,
    /// Beyond the end of the file.
    PastEnd {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: usize,
        /// Size of the file.
        size: u64,
    },
    /// A window of read-ahead is smaller than a block.
    BufferTooSmall {
        /// Its size.
        bytes: usize,
    },
    /// The volume was used from within its own listing.
    InUse,
}

const REFORMAT: &str = "format it as FAT32 (Raspberry Pi Imager does, or `mkfs.vfat -F 32`) and copy the \
                        files again";

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Card(error) => error.fmt(f),
            Self::NotFormatted => write!(f, "the card has no FAT16 or FAT32 volume: {REFORMAT}"),
            Self::ExFat => write!(f, "the card is formatted as exFAT, which is not supported: {REFORMAT}"),
            Self::Ntfs => write!(f, "the card is formatted as NTFS, which is not supported: {REFORMAT}"),
            Self::Gpt => write!(
                f,
                "the card has a GUID partition table, which is not supported: give it an MBR one, {REFORMAT}"
            ),
            Self::Fat12 => write!(f, "the card's volume is FAT12, too small to be supported: {REFORMAT}"),
            Self::SmallFat32 => write!(
                f,
                "the card's FAT32 volume has fewer than 65525 clusters, which other systems take for FAT16: \
                 format it as FAT16 (`mkfs.vfat -F 16`) and copy the files again"
            ),
            Self::SectorSize(bytes) => {
                write!(f, "the card's volume has sectors of {bytes} bytes instead of {BLOCK}: {REFORMAT}")
            }
            Self::BootSector => {
                write!(f, "the boot sector of the card's FAT volume is damaged: {REFORMAT}")
            }
            Self::Directory(fault) => {
                write!(f, "the card's root directory is damaged ({fault}): check the card on a PC")
            }
            Self::File(fault) => {
                write!(f, "the file is damaged ({fault}): check the card on a PC, or copy the file again")
            }
            Self::Damaged(what) => {
                write!(f, "the card's file system is damaged ({what}): check the card on a PC")
            }
            Self::FileNotFound => f.write_str("there is no file of that name on the card"),
            Self::PastEnd { offset, length, size } => {
                write!(f, "{length} bytes at {offset} are beyond the end of a file of {size} bytes")
            }
            Self::BufferTooSmall { bytes } => {
                write!(f, "a read-ahead buffer of {bytes} bytes is smaller than a block of {BLOCK}")
            }
            Self::InUse => f.write_str("the volume is being listed"),
        }
    }
}

impl core::error::Error for StorageError {}

impl From<CardError> for StorageError {
    fn from(error: CardError) -> Self {
        Self::Card(error)
    }
}

/// Memory for read-ahead, lent or given; what is beyond whole blocks of 512 bytes stays unused.
pub struct Buffers<B> {
    /// For the allocation tables: 32 KiB hold the chain of a 32 MiB file in 4 KiB clusters.
    pub table: B,
    /// For file data that is asked for in small pieces, and directories: the longest transfer made for them. From
    /// 64 KiB on; what is asked for in big pieces needs none.
    pub data: B,
}

/// What the directory says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'n> {
    /// Long name where it has one, else the short one in capitals.
    pub name: &'n str,
    /// Size in bytes.
    pub size: u64,
    /// Marked hidden, or its name begins with a dot (as the companions macOS leaves: `._model.gguf`).
    pub hidden: bool,
}

/// A file that was found and whose chain of clusters is whole. Holds nothing open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// First cluster; of no meaning in an empty file.
    first: u32,
    size: u32,
}

impl File {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }
}

/// No clock: files are only read.
struct NoTime;

impl TimeSource for NoTime {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp::from_fat(0x21, 0) // 1 January 1980
    }
}

/// UTF-8 of the longest name: 20 entries of 13 UTF-16 units, at most 3 bytes each.
const LONGEST_NAME: usize = 780;

/// The first FAT volume of a card.
///
/// It remembers where in the allocation table the last read has got to, so reading on costs no walk through it;
/// going backwards, or to another file, starts its chain anew.
pub struct Volume<B, D>
where
    B: DerefMut<Target = [u8]>,
    D: BlockDevice,
{
    manager: VolumeManager<ReadAhead<B, D>, NoTime, 1, 1, 1>,
    root: RawDirectory,
    /// The file system is borrowed by a walk through the directory.
    listing: Cell<bool>,
    /// Blocks of the card.
    blocks: u64,
}

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> Volume<B, D> {
    /// Finds the volume and checks its boot sector and root directory.
    ///
    /// # Errors
    /// What the card's first sectors are instead, or what is wrong with them.
    pub fn mount(mut device: D, buffers: Buffers<B>) -> Result<Self, StorageError> {
        for bytes in [buffers.table.len(), buffers.data.len()] {
            if bytes < BLOCK {
                return Err(StorageError::BufferTooSmall { bytes });
            }
        }
        let mut boot = [0; BLOCK];
        let layout = Layout::find(&mut device, &mut boot)?;
        let blocks = device.blocks();
        let device = ReadAhead::new(device, layout, boot, buffers.table, buffers.data);
        if let Some(cluster) = device.root() {
            device.check_chain(cluster, None)?.map_err(StorageError::Directory)?;
        }
        let manager = VolumeManager::new_with_limits(device, NoTime, 1);
        let opened = manager.open_raw_volume(VolumeIdx(0)).and_then(|volume| manager.open_root_dir(volume));
        let root = explain(&manager, opened)?;
        Ok(Self { manager, root, listing: Cell::new(false), blocks })
    }

    /// Blocks of 512 bytes of the whole card.
    pub fn card_blocks(&self) -> u64 {
        self.blocks
    }

    /// Asks the device something.
    pub fn device<R>(&self, ask: impl FnOnce(&D) -> R) -> R {
        self.manager.device(|read_ahead| read_ahead.device(ask))
    }

    /// Reads blocks of the whole card as they are, past all that was read before.
    pub fn read_blocks(&self, first: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let read = |device: &mut D| device.read(first, buffer);
        self.manager.device(|read_ahead| read_ahead.device_mut(read)).map_err(StorageError::Card)
    }

    /// Calls `each` for every file of the root directory, in the order they are stored.
    ///
    /// # Errors
    /// The card's, or [`StorageError::InUse`] from within `each` of the same volume.
    pub fn for_each(&self, each: &mut dyn FnMut(&Entry<'_>)) -> Result<(), StorageError> {
        self.scan(&mut |entry, name, _| {
            each(&Entry {
                name,
                size: u64::from(entry.size),
                hidden: entry.attributes.is_hidden() || name.starts_with('.'),
            });
            ControlFlow::Continue(())
        })
    }

    /// Names of the files, for a message: `a.gguf, b.txt and 3 more`.
    pub fn names(&self) -> Names<'_, B, D> {
        Names(self)
    }

    /// Finds a file by its long or short name, in any case, and checks its chain.
    ///
    /// # Errors
    /// [`StorageError::FileNotFound`]; [`StorageError::File`] if it cannot be read to its end.
    pub fn open(&self, name: &str) -> Result<File, StorageError> {
        let mut found = None;
        self.scan(&mut |entry, long, short| {
            if !same(name, long) && !same(name, short) {
                return ControlFlow::Continue(());
            }
            found = Some((entry.entry_block, entry.entry_offset, entry.size));
            ControlFlow::Break(())
        })?;
        let (block, offset, size) = found.ok_or(StorageError::FileNotFound)?;
        if size == 0 {
            return Ok(File { first: 0, size });
        }
        let first = self.manager.device(|device| device.first_cluster(block, offset))?;
        self.manager.device(|device| device.check_chain(first, Some(size)))?.map_err(StorageError::File)?;
        Ok(File { first, size })
    }

    /// Fills `buffer` with the bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::PastEnd`] rather than a short read; whatever the card reports.
    pub fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let past_end = StorageError::PastEnd { offset, length: buffer.len(), size: file.size() };
        let end = offset.checked_add(buffer.len() as u64).ok_or(past_end)?;
        if end > file.size() {
            return Err(past_end);
        }
        if self.listing.get() {
            return Err(StorageError::InUse);
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let start = u32::try_from(offset).map_err(|_| past_end)?;
        let read = self.manager.device(|device| device.read_file(file.first, start, buffer))?;
        read.map_err(StorageError::File)
    }

    /// Walks the files of the root directory: entry, long name if any else short, short name.
    fn scan(
        &self,
        each: &mut dyn FnMut(&DirEntry, &str, &str) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if self.listing.replace(true) {
            return Err(StorageError::InUse);
        }
        let mut storage = [0; LONGEST_NAME];
        let mut long_name = LfnBuffer::new(&mut storage);
        // From the card, not from memory: one that was taken out or changed is noticed here.
        self.manager.device(|device| {
            device.forget();
            device.check_names(true);
        });
        let result = self.manager.iterate_dir_lfn(self.root, &mut long_name, |entry, long| {
            if entry.attributes.is_directory() || entry.attributes.is_volume() {
                return ControlFlow::Continue(());
            }
            let mut short = heapless::String::<32>::new(); // 11 letters of at most 2 bytes, and a dot
            let _ = fmt::write(&mut short, format_args!("{}", entry.name));
            let long = long.filter(|name| !name.is_empty()).unwrap_or(&short);
            each(entry, long, &short)
        });
        self.manager.device(|device| device.check_names(false));
        self.listing.set(false);
        explain(&self.manager, result)
    }
}

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> fmt::Debug for Volume<B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("card_blocks", &self.blocks).finish_non_exhaustive()
    }
}

/// See [`Volume::names`].
pub struct Names<'v, B: DerefMut<Target = [u8]>, D: BlockDevice>(&'v Volume<B, D>);

impl<B: DerefMut<Target = [u8]>, D: BlockDevice> fmt::Display for Names<'_, B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let (mut count, mut written) = (0, Ok(()));
        let listed = self.0.for_each(&mut |entry| {
            if entry.hidden {
                return;
            }
            let comma = if count == 0 { "" } else { ", " };
            if count < SHOWN && written.is_ok() {
                written = write!(f, "{comma}{}", entry.name);
            }
            count += 1;
        });
        written?;
        match (listed, count) {
            (Err(error), _) => error.fmt(f),
            (_, 0) => f.write_str("no files"),
            (_, count) if count > SHOWN => write!(f, " and {} more", count - SHOWN),
            _ => Ok(()),
        }
    }
}

/// Whether two file names are the same, as FAT compares them: without case.
fn same(a: &str, b: &str) -> bool {
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

/// Turns the file system's error into ours. An error of the card goes first even where the file system
/// swallowed it: it takes a table it cannot read for the end of a directory.
fn explain<B: DerefMut<Target = [u8]>, D: BlockDevice, T>(
    manager: &VolumeManager<ReadAhead<B, D>, NoTime, 1, 1, 1>,
    result: Result<T, embedded_sdmmc::Error<CardError>>,
) -> Result<T, StorageError> {
    use embedded_sdmmc::Error;
    if let Some(error) = manager.device(|device| device.take_failed()) {
        return Err(StorageError::Card(error));
    }
    result.map_err(|error| match error {
        Error::DeviceError(error) => StorageError::Card(error),
        Error::FormatError(what) => StorageError::Damaged(what),
        Error::BadBlockSize(bytes) => StorageError::SectorSize(bytes),
        Error::NotFound => StorageError::FileNotFound,
        Error::EndOfFile | Error::UnterminatedFatChain => StorageError::Damaged("a file ends early"),
        Error::BadCluster => StorageError::File(ChainFault::Bad),
        _ => StorageError::Damaged("unexpected answer of the file system"),
    })
}

/// A card that is a slice of memory, for tests and for images that are loaded already.
#[derive(Clone, Copy, Debug)]
pub struct RamDisk<'a>(pub &'a [u8]);

impl BlockDevice for RamDisk<'_> {
    fn blocks(&self) -> u64 {
        (self.0.len() / BLOCK) as u64
    }

    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), CardError> {
        if !buffer.len().is_multiple_of(BLOCK) {
            return Err(CardError::NotWholeBlocks { bytes: buffer.len() });
        }
        let blocks = self.blocks();
        let bytes = usize::try_from(first)
            .ok()
            .and_then(|first| first.checked_mul(BLOCK))
            .and_then(|start| self.0.get(start..start.checked_add(buffer.len())?))
            .filter(|_| first + (buffer.len() / BLOCK) as u64 <= blocks);
        match bytes {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(CardError::BeyondEnd { sector: first.max(blocks), blocks }),
        }
        Ok(())
    }
}
