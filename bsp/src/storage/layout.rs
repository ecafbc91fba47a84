//! Where on a card the FAT volume lies, and where its parts are: every number of the partition table
//! and the boot sector is checked here, once, before anything computes with it.
//!
//! Source: Microsoft FAT specification ("FAT32 File System Specification", 1.03), boot sector and BPB,
//! and FAT type determination.

use super::StorageError;
use crate::drivers::BlockDevice;
use crate::drivers::sd_card::BLOCK;

/// [`BLOCK`], for block numbers.
pub(super) const BLOCK_U32: u32 = 512;

/// A FAT volume. Blocks are counted from its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// First block of the volume on the card.
    pub start: u64,
    /// Blocks of the volume.
    pub blocks: u32,
    /// First block of the first allocation table.
    pub table: u32,
    /// First block after all allocation tables.
    pub table_end: u32,
    /// First block of cluster 2.
    pub data: u32,
    /// Blocks in a cluster, a power of two.
    pub cluster: u32,
    /// Clusters there are; they are numbered from 2.
    pub clusters: u32,
    /// First cluster of the root directory on FAT32; FAT16 keeps it before the clusters.
    pub root: Option<u32>,
}

/// What a first sector turns out to be.
enum Kind {
    Fat,
    ExFat,
    Ntfs,
    Unknown,
}

impl Kind {
    fn of(sector: &[u8; BLOCK]) -> Self {
        match &sector[3..11] {
            b"EXFAT   " => return Self::ExFat,
            b"NTFS    " => return Self::Ntfs,
            _ => {}
        }
        let plausible = signed(sector)
            && matches!(sector[0], 0xeb | 0xe9)
            && matches!(u16_at(sector, 11), 512 | 1024 | 2048 | 4096)
            && sector[13].is_power_of_two()
            && u16_at(sector, 14) != 0
            && matches!(sector[16], 1 | 2)
            && sector[21] >= 0xf0;
        if plausible { Self::Fat } else { Self::Unknown }
    }
}

fn u16_at(bytes: &[u8; BLOCK], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; BLOCK], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn signed(sector: &[u8; BLOCK]) -> bool {
    sector[510..] == [0x55, 0xaa]
}

impl Layout {
    /// Finds the first FAT volume of a card, with a partition table or without. `sector` is left
    /// holding its boot sector.
    pub fn find<D: BlockDevice>(device: &mut D, sector: &mut [u8; BLOCK]) -> Result<Self, StorageError> {
        device.read(0, sector)?;
        match Kind::of(sector) {
            Kind::Fat => return Self::parse(sector, 0),
            Kind::ExFat => return Err(StorageError::ExFat),
            Kind::Ntfs => return Err(StorageError::Ntfs),
            Kind::Unknown if !signed(sector) => return Err(StorageError::NotFormatted),
            Kind::Unknown => {}
        }
        let mut entries = [[0; 16]; 4];
        for (entry, bytes) in entries.iter_mut().zip(sector[446..510].chunks_exact(16)) {
            entry.copy_from_slice(bytes);
        }
        // Sectors tell more than the type byte of the entry, which formatters often leave wrong.
        let mut complaint = StorageError::NotFormatted;
        for entry in entries {
            let start = u64::from(u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]));
            match entry[4] {
                0x00 => continue,
                0xee => {
                    complaint = StorageError::Gpt;
                    continue;
                }
                _ if start == 0 || start >= device.blocks() => continue,
                _ => {}
            }
            device.read(start, sector)?;
            let found = match Kind::of(sector) {
                Kind::Fat => Self::parse(sector, start),
                Kind::ExFat => Err(StorageError::ExFat),
                Kind::Ntfs => Err(StorageError::Ntfs),
                Kind::Unknown => continue,
            };
            match found {
                Ok(layout) => return Ok(layout),
                Err(error) => complaint = error,
            }
        }
        Err(complaint)
    }

    fn parse(sector: &[u8; BLOCK], start: u64) -> Result<Self, StorageError> {
        let damaged = Err(StorageError::BootSector);
        let sector_bytes = u16_at(sector, 11);
        if usize::from(sector_bytes) != BLOCK {
            return Err(StorageError::SectorSize(sector_bytes));
        }
        let cluster = u32::from(sector[13]);
        let table = u32::from(u16_at(sector, 14));
        let root_entries = u32::from(u16_at(sector, 17));
        let small_table = u32::from(u16_at(sector, 22));
        let table_blocks = if small_table != 0 { small_table } else { u32_at(sector, 36) };
        let small_total = u32::from(u16_at(sector, 19));
        let blocks = if small_total != 0 { small_total } else { u32_at(sector, 32) };

        let table_end = u64::from(table) + u64::from(sector[16]) * u64::from(table_blocks);
        let data = table_end + u64::from((root_entries * 32).div_ceil(BLOCK_U32));
        // The presented card has one block more than the volume; see `ReadAhead`.
        if table_blocks == 0 || data >= u64::from(blocks) || blocks == u32::MAX {
            return damaged;
        }
        let (Ok(table_end), Ok(data)) = (u32::try_from(table_end), u32::try_from(data)) else {
            return damaged;
        };
        let counted = (blocks - data) / cluster;
        // The kind of FAT follows from the number of clusters and nothing else, says the
        // specification; a volume that looks like the other kind is not one to guess about.
        let wide = match counted {
            0..4_085 => return Err(StorageError::Fat12),
            4_085..65_525 => false,
            _ => true,
        };
        let looks_wide = small_table == 0 && root_entries == 0;
        if wide != looks_wide {
            return if looks_wide { Err(StorageError::SmallFat32) } else { damaged };
        }
        let listed = u64::from(table_blocks) * BLOCK as u64 / if wide { 4 } else { 2 };
        let clusters = counted.min(u32::try_from(listed.saturating_sub(2)).unwrap_or(u32::MAX));
        let mut layout = Self { start, blocks, table, table_end, data, cluster, clusters, root: None };
        if wide {
            let root = u32_at(sector, 44);
            // One reserved block past the boot sector is where the information sector is shown.
            if u16_at(sector, 42) != 0 || table < 2 || !layout.contains(root) {
                return damaged;
            }
            layout.root = Some(root);
        }
        Ok(layout)
    }

    /// Whether a cluster of that number exists.
    pub fn contains(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// First block of a cluster that exists.
    pub fn block_of(&self, cluster: u32) -> u32 {
        self.data + (cluster - 2) * self.cluster
    }

    /// Cluster that a block of the data area belongs to, and how many of its blocks are left.
    pub fn cluster_of(&self, block: u32) -> Option<(u32, u32)> {
        let offset = block.checked_sub(self.data)?;
        let cluster = offset / self.cluster + 2;
        self.contains(cluster).then(|| (cluster, self.cluster - offset % self.cluster))
    }
}
