//! Volumes made by another implementation of FAT, read back through ours: what is there, what it costs
//! in card commands, and what happens when the card or its file system is broken.

use std::cell::{Cell, RefCell};
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use embodios_bsp::drivers::BlockDevice;
use embodios_bsp::drivers::sd_card::{CardError, HostError};
use embodios_bsp::storage::{Buffers, ChainFault, RamDisk, StorageError, Volume};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};

const BLOCK: usize = 512;
/// Where the volume begins on images with a partition table: as card makers do, 4 MiB in.
const PARTITION: usize = 8192;

/// Bytes that differ everywhere: a block that is missing, doubled or misplaced shows.
fn pattern(seed: u32, size: usize) -> Vec<u8> {
    (0..size as u32).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

/// A volume of `kind` with clusters of `cluster` bytes, filled by `fill`.
fn volume(kind: FatType, cluster: u32, fill: impl FnOnce(&FileSystem<&mut Cursor<Vec<u8>>>)) -> Vec<u8> {
    let clusters = match kind {
        FatType::Fat12 => 2_000,
        FatType::Fat16 => 8_000,
        FatType::Fat32 => 70_000,
    };
    let mut disk = Cursor::new(vec![0; clusters * cluster as usize]);
    let options =
        FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(cluster).volume_label(*b"EMBODIOS   ");
    fatfs::format_volume(&mut disk, options).unwrap();
    disk.seek(SeekFrom::Start(0)).unwrap();
    {
        let system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        fill(&system);
        system.unmount().unwrap();
    }
    disk.into_inner()
}

fn put(system: &FileSystem<&mut Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) {
    let mut file = system.root_dir().create_file(name).unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
}

/// Stand-ins for the two halves of 😀 in names: the maker of the volumes knows no surrogate pairs.
const SMILE: &str = "\u{e83d}\u{ee00}";

/// Puts the real halves into the names of a volume.
fn smile(mut disk: Vec<u8>) -> Vec<u8> {
    for entry in
        disk.chunks_exact_mut(32).filter(|entry| entry[11..13] == [0x0f, 0] && entry[26..28] == [0, 0])
    {
        for at in (1..11).chain(14..26).chain(28..32).filter(|at| at % 2 == usize::from(*at < 11)) {
            match entry[at..at + 2] {
                [0x3d, 0xe8] => entry[at + 1] = 0xd8,
                [0x00, 0xee] => entry[at + 1] = 0xde,
                _ => {}
            }
        }
    }
    disk
}

/// Puts a partition table with one entry of `kind` in front.
fn partitioned(volume: &[u8], kind: u8) -> Vec<u8> {
    let mut disk = vec![0; PARTITION * BLOCK];
    disk[446 + 16 + 4] = kind; // the second entry; the first is empty
    disk[446 + 16 + 8..][..4].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    disk[446 + 16 + 12..][..4].copy_from_slice(&((volume.len() / BLOCK) as u32).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend_from_slice(volume);
    disk
}

/// A card that keeps a log of its commands and fails on demand.
#[derive(Clone)]
struct Card<'a> {
    disk: RamDisk<'a>,
    log: Rc<RefCell<Vec<(u64, u64)>>>,
    bad: Rc<RefCell<Vec<u64>>>,
    /// Memory of the caller's, and blocks that were read right into it.
    caller: Rc<RefCell<Range<*const u8>>>,
    direct: Rc<Cell<u64>>,
}

impl<'a> Card<'a> {
    fn new(disk: &'a [u8]) -> Self {
        let nowhere = Rc::new(RefCell::new(ptr::null()..ptr::null()));
        Self {
            disk: RamDisk(disk),
            log: Rc::default(),
            bad: Rc::default(),
            caller: nowhere,
            direct: Rc::default(),
        }
    }

    fn commands(&self) -> u64 {
        self.log.borrow().len() as u64
    }

    fn blocks_read(&self) -> u64 {
        self.log.borrow().iter().map(|(_, blocks)| blocks).sum()
    }
}

impl BlockDevice for Card<'_> {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), CardError> {
        let blocks = (buffer.len() / BLOCK) as u64;
        self.log.borrow_mut().push((first, blocks));
        if self.caller.borrow().contains(&buffer.as_ptr()) {
            self.direct.set(self.direct.get() + blocks);
        }
        if let Some(&sector) = self.bad.borrow().iter().find(|bad| (first..first + blocks).contains(bad)) {
            return Err(CardError::Read { sector, cause: HostError::DataGarbled { command: 18 } });
        }
        self.disk.read(first, buffer)
    }
}

/// Windows of that many blocks, for as long as the test runs.
fn windows(table: usize, data: usize) -> Buffers<&'static mut [u8]> {
    let leak = |blocks: usize| vec![0xee; blocks * BLOCK].leak();
    Buffers { table: leak(table), data: leak(data) }
}

fn mount(disk: &[u8]) -> Result<Volume<&'static mut [u8], RamDisk<'_>>, StorageError> {
    Volume::mount(RamDisk(disk), windows(64, 256))
}

fn read_all<D: BlockDevice>(
    volume: &Volume<&'static mut [u8], D>,
    name: &str,
) -> Result<Vec<u8>, StorageError> {
    let file = volume.open(name)?;
    let mut bytes = vec![0; file.size() as usize];
    volume.read_at(&file, 0, &mut bytes)?;
    Ok(bytes)
}

fn listing<D: BlockDevice>(volume: &Volume<&'static mut [u8], D>) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    volume.for_each(&mut |entry| files.push((entry.name.to_string(), entry.size))).unwrap();
    files
}

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const UNICODE: &str = "grünes 模型 für 😀😀😀😀.gguf";

#[test]
fn files_are_listed_and_read_on_fat16_and_fat32_with_and_without_a_partition_table() {
    for (kind, cluster, type_byte) in [(FatType::Fat16, 2048, 0x0e), (FatType::Fat32, 512, 0x0c)] {
        let plain = volume(kind, cluster, |system| {
            put(system, "config.txt", b"arm_64bit=1\n");
            put(system, MODEL, &pattern(1, 300_001));
            system.root_dir().create_dir("overlays").unwrap();
            put(system, &UNICODE.replace('😀', SMILE), &pattern(2, 2048));
            put(system, "empty.cfg", b"");
            put(system, "EMBODIOS", b"named like the volume");
        });
        let plain = smile(plain);
        let with_table = partitioned(&plain, type_byte);
        for disk in [&plain, &with_table] {
            let volume = mount(disk).unwrap();
            assert_eq!(volume.card_blocks(), (disk.len() / BLOCK) as u64);
            assert_eq!(
                listing(&volume),
                [
                    ("config.txt".to_string(), 12),
                    (MODEL.to_string(), 300_001),
                    (UNICODE.to_string(), 2048),
                    ("empty.cfg".to_string(), 0),
                    ("EMBODIOS".to_string(), 21)
                ],
                "{kind:?}"
            );
            assert_eq!(read_all(&volume, "config.txt").unwrap(), b"arm_64bit=1\n");
            assert_eq!(read_all(&volume, MODEL).unwrap(), pattern(1, 300_001));
            assert_eq!(read_all(&volume, UNICODE).unwrap(), pattern(2, 2048));
            assert_eq!(read_all(&volume, "empty.cfg").unwrap(), b"");
            assert_eq!(read_all(&volume, "EMBODIOS").unwrap(), b"named like the volume");
            // Any case, and the short name too.
            assert_eq!(read_all(&volume, "CONFIG.TXT").unwrap(), b"arm_64bit=1\n");
            assert_eq!(volume.open(&MODEL.to_uppercase()).unwrap().size(), 300_001);
            assert_eq!(volume.open(&UNICODE.to_uppercase()).unwrap().size(), 2048);
            assert_eq!(volume.open("smollm~1.ggu").unwrap().size(), 300_001);
            assert_eq!(volume.open("overlays"), Err(StorageError::FileNotFound), "a directory is no file");
            assert_eq!(volume.open("model.gguf"), Err(StorageError::FileNotFound));
            assert_eq!(
                volume.names().to_string(),
                format!("config.txt, {MODEL}, {UNICODE}, empty.cfg, EMBODIOS")
            );
        }
    }
}

#[test]
fn a_listing_with_many_files_crosses_directory_clusters_and_is_shortened_in_messages() {
    for (kind, cluster) in [(FatType::Fat16, 2048), (FatType::Fat32, 512)] {
        let disk = volume(kind, cluster, |system| {
            for i in 0..100 {
                put(system, &format!("a rather long name for file number {i}.bin"), &pattern(i, i as usize));
            }
        });
        let volume = mount(&disk).unwrap();
        let files = listing(&volume);
        assert_eq!(files.len(), 100);
        for (i, (name, size)) in files.iter().enumerate() {
            assert_eq!(
                (name.as_str(), *size),
                (&*format!("a rather long name for file number {i}.bin"), i as u64)
            );
            assert_eq!(read_all(&volume, name).unwrap(), pattern(i as u32, i));
        }
        assert!(volume.names().to_string().ends_with("file number 7.bin and 92 more"));
    }
}

#[test]
fn names_with_surrogate_pairs_anywhere_are_whole() {
    for front in 0..14 {
        let name = format!("{}😀{}😀.gguf", "x".repeat(front), "y".repeat(11));
        let stand_in = name.replace('😀', SMILE);
        let disk = smile(volume(FatType::Fat16, 2048, |system| put(system, &stand_in, b"content")));
        let volume = mount(&disk).unwrap();
        assert_eq!(listing(&volume), [(name.clone(), 7)]);
        assert_eq!(read_all(&volume, &name).unwrap(), b"content");
    }
}

#[test]
fn reads_at_any_offset_and_length_give_the_bytes_of_the_file_even_in_pieces() {
    for (kind, cluster) in [(FatType::Fat16, 1024), (FatType::Fat32, 512)] {
        let (a, b) = (pattern(1, 200_321), pattern(2, 150_000));
        // Written in turns, so that no two clusters of a file are neighbours for long.
        let disk = volume(kind, cluster, |system| {
            let mut files = ["a.bin", "b.bin"].map(|name| system.root_dir().create_file(name).unwrap());
            let (mut rest_a, mut rest_b) = (&a[..], &b[..]);
            for step in 1.. {
                let (cut_a, cut_b) = ((step * 700).min(rest_a.len()), 3000.min(rest_b.len()));
                files[0].write_all(&rest_a[..cut_a]).unwrap();
                files[1].write_all(&rest_b[..cut_b]).unwrap();
                (rest_a, rest_b) = (&rest_a[cut_a..], &rest_b[cut_b..]);
                if rest_a.is_empty() && rest_b.is_empty() {
                    break;
                }
            }
        });
        let volume = mount(&disk).unwrap();
        assert_eq!(read_all(&volume, "a.bin").unwrap(), a);
        assert_eq!(read_all(&volume, "b.bin").unwrap(), b);
        let files = [(volume.open("a.bin").unwrap(), &a), (volume.open("B.BIN").unwrap(), &b)];
        let mut random = 1u32;
        for round in 0..400 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (file, bytes) = &files[round % 2];
            let offset = random as usize >> 8 & 0x3_ffff;
            let length =
                [0, 1, 511, 512, 513, 4096, 30_000, 40_000, 32_768, 99_999][(random as usize >> 4) % 10];
            let mut buffer = vec![0xcc; length];
            let result = volume.read_at(file, offset as u64, &mut buffer);
            if offset + length > bytes.len() {
                let size = bytes.len() as u64;
                assert_eq!(result, Err(StorageError::PastEnd { offset: offset as u64, length, size }));
            } else {
                assert_eq!(result, Ok(()));
                assert_eq!(buffer, bytes[offset..offset + length], "{length} at {offset}");
            }
        }
        let last = volume.read_at(&files[0].0, u64::MAX, &mut [0]);
        assert!(matches!(last, Err(StorageError::PastEnd { .. })));
    }
}

#[test]
fn a_sequential_read_is_made_of_long_commands_that_read_little_but_the_file() {
    const SIZE: usize = 20_000_123;
    let disk = volume(FatType::Fat32, 2048, |system| {
        put(system, "first.bin", &pattern(3, 5000));
        put(system, "model.gguf", &pattern(4, SIZE));
    });
    for window in [128, 2048] {
        let card = Card::new(&disk);
        let volume = Volume::mount(card.clone(), windows(64, window)).unwrap();
        let file = volume.open("model.gguf").unwrap();
        let expected = pattern(4, SIZE);
        // As a loader does: the header in small steps, then tensor after tensor.
        let mut position = 0;
        let mut buffer = vec![0; 1 << 20];
        while position < SIZE {
            let step = if position < 100_000 { 37 } else { 1_000_003 }.min(SIZE - position);
            volume.read_at(&file, position as u64, &mut buffer[..step]).unwrap();
            assert_eq!(buffer[..step], expected[position..position + step]);
            position += step;
        }
        let blocks = SIZE.div_ceil(BLOCK) as u64;
        let (commands, read) = (card.commands(), card.blocks_read());
        println!("window of {window}: {commands} commands, {read} blocks for {blocks}");
        assert!(read * 100 <= blocks * 105, "{read} blocks read for {blocks}");
        assert!(blocks / commands >= 700, "{blocks} blocks in {commands} commands");
    }
}

#[test]
fn a_big_piece_goes_straight_into_the_callers_memory_and_nothing_is_read_twice() {
    let content = pattern(4, 3_000_000);
    let disk = volume(FatType::Fat32, 2048, |system| put(system, "model.gguf", &content));
    let card = Card::new(&disk);
    let volume = Volume::mount(card.clone(), windows(64, 1024)).unwrap();
    let file = volume.open("model.gguf").unwrap();
    for start in [0, 37] {
        card.log.borrow_mut().clear();
        card.direct.set(0);
        let mut buffer = vec![0; 2_999_900];
        *card.caller.borrow_mut() = buffer.as_ptr_range();
        for (part, at) in buffer.chunks_mut(1_000_000).zip((start..).step_by(1_000_000)) {
            volume.read_at(&file, at as u64, part).unwrap();
        }
        assert!(buffer == content[start..start + buffer.len()]);
        // All but the blocks that no piece has whole, and a table.
        assert!(card.direct.get() >= 5_852, "{} blocks", card.direct.get());
        assert!(card.blocks_read() <= 5_860 + 64, "{} blocks", card.blocks_read());
    }
}

#[test]
fn a_chain_that_has_changed_since_the_file_was_opened_is_an_error() {
    let sound = volume(FatType::Fat32, 512, |system| put(system, "MODEL.BIN", &pattern(9, 100_000)));
    let (first, entry) =
        (first_cluster(&sound, b"MODEL   BIN"), |cluster: u32| table_of(&sound) + cluster as usize * 4);
    let file = mount(&sound).unwrap().open("model.bin").unwrap();
    let cases = [
        (0, ChainFault::Free),
        (0x0fff_fff7, ChainFault::Bad),
        (0x0fff_ffff, ChainFault::Short { have: 51, need: 52 }),
        (0x0abc_def0, ChainFault::Outside { cluster: 0x0abc_def0 }),
    ];
    for (value, fault) in cases {
        let mut disk = sound.clone();
        disk[entry(first + 50)..][..4].copy_from_slice(&u32::to_le_bytes(value));
        let volume = mount(&disk).unwrap();
        for (offset, length) in [(0, 100_000), (26_112, 1), (26_600, 10)] {
            let read = volume.read_at(&file, offset, &mut vec![0; length]);
            assert_eq!(read, Err(StorageError::File(fault)), "{length} at {offset}");
        }
        let mut buffer = [0; 512];
        volume.read_at(&file, 25_600, &mut buffer).unwrap();
        assert_eq!(buffer, pattern(9, 100_000)[25_600..26_112]);
    }
}

#[test]
fn a_jump_forward_reads_64_kib_and_not_the_whole_window() {
    let disk = volume(FatType::Fat32, 2048, |system| put(system, "model.gguf", &pattern(4, 8_000_000)));
    let card = Card::new(&disk);
    let volume = Volume::mount(card.clone(), windows(64, 2048)).unwrap();
    let file = volume.open("model.gguf").unwrap();
    for offset in [5_000_000, 1_000_000, 7_900_000] {
        card.log.borrow_mut().clear();
        volume.read_at(&file, offset, &mut [0; 100]).unwrap();
        let longest = card.log.borrow().iter().map(|(_, blocks)| *blocks).max();
        assert_eq!(longest, Some(128));
    }
}

#[test]
fn the_tables_and_the_data_do_not_evict_each_other() {
    let disk = volume(FatType::Fat32, 512, |system| put(system, "model.gguf", &pattern(4, 4_000_000)));
    let card = Card::new(&disk);
    let volume = Volume::mount(card.clone(), windows(128, 128)).unwrap();
    let file = volume.open("model.gguf").unwrap();
    card.log.borrow_mut().clear();
    let mut buffer = vec![0; 4_000_000];
    volume.read_at(&file, 0, &mut buffer).unwrap();
    assert_eq!(buffer, pattern(4, 4_000_000));
    // 7,813 clusters are 62 blocks of the table: they were read once, at the latest now.
    let data = 7_813u64.div_ceil(128);
    assert!(card.commands() <= data + 2, "{} commands for {data} windows of data", card.commands());
}

#[test]
fn more_files_than_handles_can_be_open_at_once_and_closing_is_nobodys_duty() {
    let disk = volume(FatType::Fat16, 2048, |system| {
        (0..20).for_each(|i| put(system, &format!("{i}.bin"), &pattern(i, 5000)));
    });
    let volume = mount(&disk).unwrap();
    let files: Vec<_> = (0..20).map(|i| volume.open(&format!("{i}.bin")).unwrap()).collect();
    let mut buffer = [0; 100];
    for round in 0..3 {
        for (i, file) in files.iter().enumerate() {
            let again = volume.open(&format!("{i}.BIN")).unwrap();
            assert_eq!(again, *file);
            volume.read_at(file, 3000 + round, &mut buffer).unwrap();
            assert_eq!(buffer, pattern(i as u32, 5000)[3000 + round as usize..][..100]);
        }
    }
}

#[test]
fn a_listing_that_uses_the_volume_it_lists_is_refused() {
    let disk = volume(FatType::Fat16, 2048, |system| {
        put(system, "a.bin", b"a");
        put(system, "b.bin", b"b");
    });
    let volume = mount(&disk).unwrap();
    let mut inner = Vec::new();
    let mut names = Vec::new();
    volume
        .for_each(&mut |entry| {
            names.push(entry.name.to_string());
            inner.push(volume.open("a.bin").err());
        })
        .unwrap();
    assert_eq!(names, ["a.bin", "b.bin"]);
    assert_eq!(inner, [Some(StorageError::InUse); 2]);
    assert_eq!(read_all(&volume, "b.bin").unwrap(), b"b");
}

#[test]
fn what_is_not_fat_is_named_with_what_to_do() {
    let refused = |disk: &[u8]| mount(disk).err().unwrap();
    let mut boot = vec![0; 64 * BLOCK];
    assert_eq!(refused(&boot), StorageError::NotFormatted, "an empty card");
    assert_eq!(refused(&[]), StorageError::Card(CardError::BeyondEnd { sector: 0, blocks: 0 }));
    boot[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(refused(&boot), StorageError::NotFormatted, "an empty partition table");
    assert_eq!(refused(&partitioned(&vec![0; 64 * BLOCK], 0x83)), StorageError::NotFormatted);
    for (name, error) in [(b"EXFAT   ", StorageError::ExFat), (b"NTFS    ", StorageError::Ntfs)] {
        boot[3..11].copy_from_slice(name);
        assert_eq!(refused(&boot), error);
        assert_eq!(refused(&partitioned(&boot, 7)), error);
        assert!(error.to_string().contains("format it as FAT32"), "{error}");
    }
    assert_eq!(refused(&partitioned(&boot, 0xee)), StorageError::Gpt);
    let small = volume(FatType::Fat12, 512, |_| ());
    assert_eq!(refused(&small), StorageError::Fat12);
    assert_eq!(refused(&partitioned(&small, 1)), StorageError::Fat12);
    // FAT32 by its looks, with too few clusters.
    let mut wide = volume(FatType::Fat32, 512, |_| ());
    wide[32..36].copy_from_slice(&60_000u32.to_le_bytes());
    assert_eq!(refused(&wide), StorageError::SmallFat32);
    // A partition that lies behind the end of a card that was cut short.
    let cut = &partitioned(&small, 12)[..PARTITION * BLOCK];
    assert_eq!(refused(cut), StorageError::NotFormatted);
    let tiny = Volume::mount(RamDisk(&wide), windows(0, 1)).err();
    assert_eq!(tiny, Some(StorageError::BufferTooSmall { bytes: 0 }));
}

#[test]
fn the_first_fat_partition_is_taken_whatever_stands_before_it() {
    let fat = volume(FatType::Fat16, 2048, |system| put(system, "here.txt", b"found"));
    let mut disk = partitioned(&fat, 6);
    disk[446 + 4] = 7; // first entry: an exFAT volume at block 100
    disk[446 + 8] = 100;
    disk[100 * BLOCK + 3..][..8].copy_from_slice(b"EXFAT   ");
    assert_eq!(read_all(&mount(&disk).unwrap(), "here.txt").unwrap(), b"found");
}

/// Byte offsets of the first table and, on FAT16, the number of its entry bytes.
fn table_of(disk: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([disk[14], disk[15]])) * BLOCK
}

/// First cluster of the only file of a fresh volume, found by walking the root directory's bytes.
fn first_cluster(disk: &[u8], short: &[u8; 11]) -> u32 {
    let entry = disk.windows(32).find(|window| window.starts_with(short)).unwrap();
    u32::from(u16::from_le_bytes([entry[26], entry[27]]))
        | u32::from(u16::from_le_bytes([entry[20], entry[21]])) << 16
}

#[test]
fn chains_that_cannot_be_followed_are_an_error_and_never_a_hang() {
    for (kind, cluster, width) in [(FatType::Fat16, 2048, 2), (FatType::Fat32, 512, 4)] {
        let size = 20 * cluster as usize - 5;
        let sound = volume(kind, cluster, |system| {
            put(system, "MODEL.BIN", &pattern(9, size));
            put(system, "OTHER.BIN", &pattern(8, 1000));
        });
        let first = first_cluster(&sound, b"MODEL   BIN");
        let (bad, end) = if width == 2 { (0xfff7u32, 0xfff8u32) } else { (0x0fff_fff7, 0x0fff_fff8) };
        let cases = [
            ("a loop to the start", 7, first, ChainFault::Loop),
            ("a loop to itself", 7, first + 7, ChainFault::Loop),
            ("a loop at the last cluster", 19, first + 3, ChainFault::Loop),
            ("an early end", 7, end, ChainFault::Short { have: 8, need: 20 }),
            ("a free cluster", 7, 0, ChainFault::Free),
            ("the reserved cluster", 7, 1, ChainFault::Free),
            ("a bad cluster", 7, bad, ChainFault::Bad),
            ("beyond the last cluster", 7, 0xff00, ChainFault::Outside { cluster: 0xff00 }),
        ];
        for (what, at, value, fault) in cases {
            let (value, fault) = match (kind, fault) {
                (FatType::Fat32, ChainFault::Outside { .. }) => {
                    (0xabc_def0, ChainFault::Outside { cluster: 0xabc_def0 })
                }
                _ => (value, fault),
            };
            let mut disk = sound.clone();
            let entry = table_of(&disk) + (first as usize + at) * width;
            disk[entry..entry + width].copy_from_slice(&value.to_le_bytes()[..width]);
            let volume = mount(&disk).unwrap();
            assert_eq!(volume.open("model.bin"), Err(StorageError::File(fault)), "{what}, {kind:?}");
            assert_eq!(read_all(&volume, "other.bin").unwrap(), pattern(8, 1000), "{what}: other files live");
        }
        // A first cluster that does not exist.
        for cluster in [0u32, 1, 0xfffe, 0x4000_0000 | first] {
            let mut disk = sound.clone();
            let entry = disk.windows(11).position(|window| window == b"MODEL   BIN").unwrap();
            let cluster_bytes = cluster.to_le_bytes();
            disk[entry + 26..entry + 28].copy_from_slice(&cluster_bytes[..2]);
            disk[entry + 20..entry + 22].copy_from_slice(&cluster_bytes[2..]);
            let volume = mount(&disk).unwrap();
            let opened = volume.open("model.bin");
            match (kind, cluster) {
                (FatType::Fat16, 0x4000_0000..) => assert!(opened.is_ok(), "FAT16 has no upper half"),
                _ if cluster == 0xfffe && kind == FatType::Fat32 => {
                    assert!(matches!(opened, Err(StorageError::File(_))), "a free cluster")
                }
                _ => assert_eq!(opened, Err(StorageError::File(ChainFault::Outside { cluster }))),
            }
        }
        // More clusters than the size needs are nobody's harm.
        let mut disk = sound.clone();
        let entry = disk.windows(11).position(|window| window == b"MODEL   BIN").unwrap();
        disk[entry + 28..entry + 32].copy_from_slice(&1000u32.to_le_bytes());
        assert_eq!(read_all(&mount(&disk).unwrap(), "model.bin").unwrap(), pattern(9, size)[..1000]);
    }
}

#[test]
fn a_root_directory_that_is_a_loop_is_refused() {
    let mut disk = volume(FatType::Fat32, 512, |system| {
        (0..50).for_each(|i| put(system, &format!("some long file name {i}.bin"), b"x"));
    });
    assert!(mount(&disk).is_ok());
    let (root, table) = (u32::from_le_bytes(disk[44..48].try_into().unwrap()), table_of(&disk));
    let entry = table + root as usize * 4;
    disk[entry..entry + 4].copy_from_slice(&root.to_le_bytes());
    assert_eq!(mount(&disk).err(), Some(StorageError::Directory(ChainFault::Loop)));
    disk[44..48].copy_from_slice(&1u32.to_le_bytes());
    assert_eq!(mount(&disk).err(), Some(StorageError::BootSector));
}

#[test]
fn half_a_surrogate_pair_hides_the_long_name_and_nothing_else() {
    let mut disk = volume(FatType::Fat16, 2048, |system| {
        put(system, "a name of more than thirteen units.bin", b"content");
        put(system, "next.bin", b"next");
    });
    // The last entry of the name comes first; make its first unit half a pair.
    let entry = disk
        .windows(12)
        .position(|window| window[0] & 0x40 != 0 && window[11] == 0x0f && window[1..3] != [0, 0])
        .unwrap();
    for half in [0xdc00u16, 0xd83d] {
        disk[entry + 1..entry + 3].copy_from_slice(&half.to_le_bytes());
        let volume = mount(&disk).unwrap();
        let names: Vec<String> = listing(&volume).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ANAMEO~1.BIN", "next.bin"]);
        assert_eq!(read_all(&volume, "anameo~1.bin").unwrap(), b"content");
    }
}

#[test]
fn a_card_that_was_taken_out_is_noticed_by_the_next_listing_and_the_next_open() {
    let disk = volume(FatType::Fat16, 2048, |system| put(system, "here.txt", b"found"));
    let card = Card::new(&disk);
    let volume = Volume::mount(card.clone(), windows(64, 256)).unwrap();
    assert_eq!(listing(&volume).len(), 1);
    card.bad.borrow_mut().extend(0..(disk.len() / BLOCK) as u64);
    assert!(matches!(volume.for_each(&mut |_| ()), Err(StorageError::Card(CardError::Read { .. }))));
    assert!(matches!(volume.open("here.txt"), Err(StorageError::Card(CardError::Read { .. }))));
    assert!(volume.names().to_string().contains("could not be read"));
    card.bad.borrow_mut().clear();
    assert_eq!(read_all(&volume, "here.txt").unwrap(), b"found");
}

#[test]
fn an_image_cut_short_is_read_up_to_where_it_ends() {
    let sound = volume(FatType::Fat32, 512, |system| {
        put(system, "first.bin", &pattern(1, 10_000));
        put(system, "last.bin", &pattern(2, 200_000));
    });
    let start = first_cluster(&sound, b"LAST    BIN") as usize;
    let data =
        sound.len() / BLOCK - (sound.len() / BLOCK - table_of(&sound) / BLOCK - 2 * table_blocks(&sound));
    let cut = &sound[..(data + start - 2 + 100) * BLOCK];
    let volume = mount(cut).unwrap();
    assert_eq!(read_all(&volume, "first.bin").unwrap(), pattern(1, 10_000));
    let file = volume.open("last.bin").unwrap();
    let mut buffer = vec![0; 100 * BLOCK];
    volume.read_at(&file, 0, &mut buffer).unwrap();
    assert_eq!(buffer, pattern(2, 200_000)[..100 * BLOCK]);
    let blocks = (cut.len() / BLOCK) as u64;
    let beyond = volume.read_at(&file, 100 * BLOCK as u64, &mut [0]);
    assert_eq!(beyond, Err(StorageError::Card(CardError::BeyondEnd { sector: blocks, blocks })));
}

fn table_blocks(disk: &[u8]) -> usize {
    u32::from_le_bytes(disk[36..40].try_into().unwrap()) as usize
}

#[test]
fn an_unreadable_sector_stops_only_whoever_needs_it() {
    let content = pattern(1, 600_000);
    let disk = volume(FatType::Fat32, 512, |system| put(system, "model.gguf", &content));
    let card = Card::new(&disk);
    let volume = Volume::mount(card.clone(), windows(64, 1024)).unwrap();
    let file = volume.open("model.gguf").unwrap();
    let start = disk.windows(BLOCK).step_by(BLOCK).position(|block| block == &content[..BLOCK]).unwrap();
    let sector = start as u64 + 700;
    card.bad.borrow_mut().push(sector);
    let mut buffer = vec![0; content.len()];
    volume.read_at(&file, 0, &mut buffer[..700 * BLOCK]).unwrap();
    assert_eq!(buffer[..700 * BLOCK], content[..700 * BLOCK]);
    let error = volume.read_at(&file, 0, &mut buffer).unwrap_err();
    assert!(
        matches!(error, StorageError::Card(CardError::Read { sector: at, .. }) if at == sector),
        "{error}"
    );
    let after = 701 * BLOCK;
    volume.read_at(&file, after as u64, &mut buffer[after..]).unwrap();
    assert_eq!(buffer[after..], content[after..]);
    // Once it can be read again, so can the file.
    card.bad.borrow_mut().clear();
    volume.read_at(&file, 0, &mut buffer).unwrap();
    assert_eq!(buffer, content);
}

#[test]
fn errors_of_the_card_pass_through_wherever_they_happen() {
    let disk = volume(FatType::Fat32, 512, |system| {
        (0..60).for_each(|i| put(system, &format!("a rather long file name {i}.bin"), &pattern(i, 3000)));
    });
    let blocks = (disk.len() / BLOCK) as u64;
    let healthy = Card::new(&disk);
    let run = |card: &Card<'_>| -> Result<(), StorageError> {
        // The smallest windows: every block counts.
        let volume = Volume::mount(card.clone(), windows(1, 1))?;
        volume.for_each(&mut |_| ())?;
        assert_eq!(read_all(&volume, "a rather long file name 59.bin")?, pattern(59, 3000));
        Ok(())
    };
    run(&healthy).unwrap();
    let mut used: Vec<u64> = healthy.log.borrow().iter().map(|(first, _)| *first).collect();
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 20 && used.iter().all(|sector| *sector < blocks));
    for sector in used {
        let card = Card::new(&disk);
        card.bad.borrow_mut().push(sector);
        let expected = CardError::Read { sector, cause: HostError::DataGarbled { command: 18 } };
        assert_eq!(run(&card), Err(StorageError::Card(expected)), "sector {sector}");
    }
}

#[test]
fn no_damage_to_the_metadata_makes_it_panic_or_hang() {
    for (kind, cluster) in [(FatType::Fat16, 1024), (FatType::Fat32, 512)] {
        let sound = smile(volume(kind, cluster, |system| {
            put(system, MODEL, &pattern(1, 30_000));
            put(system, &format!("a rather long name with {SMILE} in it and more.bin"), &pattern(2, 3_000));
            put(system, "config.txt", b"arm_64bit=1\n");
        }));
        let root = sound.windows(11).position(|window| window == b"CONFIG  TXT").unwrap() / BLOCK * BLOCK;
        let table = table_of(&sound);
        let mut random = 7u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random as usize >> 8
        };
        let mut disk = sound.clone();
        let mut mounted = 0;
        for round in 0..6000 {
            // Boot sector byte by byte and value by value, then tables and directory at random.
            let mut places = Vec::new();
            if round < 90 * 16 {
                places.push((
                    round / 16,
                    [0, 1, 2, 0x7f, 0x80, 0xff, 0xe5, 0x40][round % 8].max((round % 16 / 8) as u8 * 3),
                ));
            } else {
                for _ in 0..1 + next() % 4 {
                    let place = if next() % 2 == 0 { root + next() % BLOCK } else { table + next() % 400 };
                    places.push((place, next() as u8));
                }
            }
            for &(at, value) in &places {
                disk[at] = value;
            }
            let (mut table, mut data) = (vec![0; 4 * BLOCK], vec![0; 16 * BLOCK]);
            let buffers = Buffers { table: &mut table[..], data: &mut data[..] };
            if let Ok(volume) = Volume::mount(RamDisk(&disk), buffers) {
                mounted += 1;
                let mut names = Vec::new();
                let _ = volume.for_each(&mut |entry| names.push(entry.name.to_string()));
                for name in names {
                    if let Ok(file) = volume.open(&name) {
                        let mut buffer = vec![0; file.size().min(40_000) as usize];
                        let _ = volume.read_at(&file, 0, &mut buffer);
                    }
                }
            }
            for &(at, _) in &places {
                disk[at] = sound[at];
            }
        }
        assert!(mounted > 3000, "{mounted} volumes still mounted");
    }
}
