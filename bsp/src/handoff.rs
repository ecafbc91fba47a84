//! What the boot loader tells us: RAM, what in it is taken, the initial RAM disk, the boot arguments.
//!
//! A Raspberry Pi's boot loader passes a device tree that it has patched for the board: only that copy knows
//! the RAM. QEMU without `-dtb`, and old boot loaders, leave a list of tags (ATAGs) at 0x100 instead. With
//! neither, VideoCore is asked. Nothing in either is trusted: a length that leads out of the blob ends the
//! reading, and what was read so far stays. The reader is our own because it has to make do with trees that a
//! checking parser refuses as a whole.
//!
//! Sources: Devicetree Specification v0.4, chapter 5; Raspberry Pi documentation for the root property
//! `memreserve`; "Booting ARM Linux" for ATAGs.

use core::ops::Range;

use heapless::{String, Vec};

use crate::cpu::psci::Psci;
use crate::drivers::sdhci::Window;

/// Bytes of boot arguments kept.
pub const ARGUMENTS_MAX: usize = 1024;
/// Largest device tree read.
pub const TREE_MAX: usize = 2 << 20;
/// Bytes in front of a device tree that say what it is and how long.
pub const TREE_HEAD: usize = 40;
/// Bytes of a tag list that are looked at.
pub const TAGS_MAX: usize = 0x3f00;

const TREE_MAGIC: u32 = 0xd00d_feed;
const NODE_BEGINS: u32 = 1;
const NODE_ENDS: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;

const TAG_CORE: u32 = 0x5441_0001;
const TAG_MEMORY: u32 = 0x5441_0002;
const TAG_INITRD: u32 = 0x5442_0005;
const TAG_COMMAND_LINE: u32 = 0x5441_0009;

/// Where the facts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A device tree.
    DeviceTree,
    /// A list of tags.
    Tags,
    /// Nobody told us.
    #[default]
    Nothing,
}

/// The facts.
#[derive(Clone, Debug, Default)]
pub struct Handoff {
    /// Where they come from.
    pub source: Source,
    /// RAM banks.
    pub banks: Vec<Range<u64>, 16>,
    /// Parts of RAM that are someone else's.
    pub reserved: Vec<Range<u64>, 32>,
    /// The initial RAM disk, which is a model for us.
    pub initrd: Option<Range<u64>>,
    /// Boot arguments.
    pub arguments: String<ARGUMENTS_MAX>,
    /// The board's name.
    pub model: String<64>,
    /// Names of board and chip, most exact first.
    pub compatible: Vec<String<40>, 6>,
    /// Where each parked core looks for its entry address.
    pub release_words: [Option<u64>; 4],
    /// The firmware that starts cores and switches the board off, if there is one.
    pub psci: Option<Psci>,
    /// The cores' `enable-method` says that the firmware starts them.
    pub cores_by_psci: bool,
    /// The board's revision code, as a Raspberry Pi's boot loader writes it.
    pub revision: Option<u32>,
    /// How the card's controller sees memory (`dma-ranges` of `emmc2bus`): on a Raspberry Pi 4 it depends on the stepping.
    pub sd_window: Option<Window>,
    /// Where PCI configuration space begins: only QEMU's virt has it right under the root.
    pub pci: Option<u64>,
    /// Something did not fit in here or led nowhere, and was left out.
    pub incomplete: bool,
}

impl Handoff {
    /// Whether the boot arguments contain this word, or this `key=value`.
    pub fn has_argument(&self, word: &str) -> bool {
        self.arguments.split_ascii_whitespace().any(|argument| argument == word)
    }

    /// Bytes of RAM in all banks.
    pub fn ram(&self) -> u64 {
        self.banks.iter().map(|bank| bank.end - bank.start).sum()
    }

    /// Reserves a part of RAM that someone else says is theirs, unless all of it is reserved or no RAM.
    pub fn keep_out(&mut self, range: Range<u64>) {
        let overlaps = |bank: &Range<u64>| bank.start < range.end && range.start < bank.end;
        let known = |taken: &Range<u64>| taken.start <= range.start && range.end <= taken.end;
        if self.banks.iter().any(overlaps) && !self.reserved.iter().any(known) {
            self.reserve(range.start, range.end.saturating_sub(range.start));
        }
    }

    fn add_bank(&mut self, start: u64, bytes: u64) {
        if let (true, Some(end)) = (bytes > 0, start.checked_add(bytes)) {
            self.incomplete |= self.banks.push(start..end).is_err();
        }
    }

    fn reserve(&mut self, start: u64, bytes: u64) {
        if let (true, Some(end)) = (bytes > 0, start.checked_add(bytes)) {
            self.incomplete |= self.reserved.push(start..end).is_err();
        }
    }

    fn set_arguments(&mut self, bytes: &[u8]) {
        let text = text(bytes);
        self.arguments.clear();
        for character in text.chars() {
            if self.arguments.push(character).is_err() {
                self.incomplete = true;
                break;
            }
        }
    }
}

/// The part of a string property that is UTF-8, up to its zero.
fn text(bytes: &[u8]) -> &str {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Keeps as much of a string as fits.
fn keep<const N: usize>(bytes: &[u8]) -> String<N> {
    let mut kept = String::new();
    for character in text(bytes).chars() {
        if kept.push(character).is_err() {
            break;
        }
    }
    kept
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// A number of one or two cells at the front of `bytes`, and the rest.
fn cells(bytes: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(count * 4)?;
    if count > 2 {
        return None;
    }
    let value = number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    Some((value, rest))
}

/// Length of the device tree that begins with `head` ([`TREE_HEAD`] bytes), if one does.
pub fn device_tree_length(head: &[u8]) -> Option<usize> {
    let length = big_endian(head, 4)? as usize;
    (big_endian(head, 0)? == TREE_MAGIC && (TREE_HEAD..=TREE_MAX).contains(&length)).then_some(length)
}

/// What is known of the nodes above the one being read.
#[derive(Clone, Copy)]
struct Level<'a> {
    name: &'a str,
    /// Cells of an address and of a size in the children's `reg`.
    address_cells: usize,
    size_cells: usize,
}

/// A core's node while it is read: its number comes and its release word, in any order.
#[derive(Clone, Copy, Default)]
struct Core {
    number: Option<u64>,
    word: Option<u64>,
}

/// Reads a device tree.
pub fn from_device_tree(blob: &[u8]) -> Option<Handoff> {
    device_tree_length(blob)?;
    let mut facts = Handoff { source: Source::DeviceTree, ..Handoff::default() };
    let offset = |at| big_endian(blob, at).map(|offset| offset as usize);
    let (structure, strings, reservations) = (offset(8)?, offset(12)?, offset(16)?);

    // Reservation block: pairs of 64-bit address and size, ended by zeros.
    let mut rest = blob.get(reservations..).unwrap_or_default();
    while let Some((start, after)) = cells(rest, 2)
        && let Some((bytes, after)) = cells(after, 2)
        && (start, bytes) != (0, 0)
    {
        facts.reserve(start, bytes);
        rest = after;
    }

    if walk(blob, structure, strings, &mut facts).is_none() {
        facts.incomplete = true; // it ended before its end: keep what was read
    }
    Some(facts)
}

/// Walks the structure block. None if it leads out of the blob.
fn walk(blob: &[u8], structure: usize, strings: usize, facts: &mut Handoff) -> Option<()> {
    let mut path: Vec<Level<'_>, 16> = Vec::new();
    let mut initrd = (None, None);
    let mut core = Core::default();
    let mut at = structure;
    loop {
        let token = big_endian(blob, at)?;
        at += 4;
        match token {
            NODE_BEGINS => {
                let name = blob.get(at..)?;
                let length = name.iter().position(|&byte| byte == 0)?;
                let name = text(&name[..length]);
                at = (at + length + 1).next_multiple_of(4);
                // The specification's values for a node that does not say.
                path.push(Level { name, address_cells: 2, size_cells: 1 }).ok()?;
                core = Core::default();
            }
            NODE_ENDS => {
                if let Core { number: Some(number), word: Some(word) } = core
                    && let Some(slot) = facts.release_words.get_mut(number as usize)
                {
                    *slot = Some(word);
                }
                core = Core::default();
                path.pop()?;
                if path.is_empty() {
                    break;
                }
            }
            PROPERTY => {
                let length = big_endian(blob, at)? as usize;
                let name = strings.checked_add(big_endian(blob, at + 4)? as usize)?;
                let value = blob.get(at + 8..(at + 8).checked_add(length)?)?;
                at = (at + 8 + length).next_multiple_of(4);
                property(&mut path, text(blob.get(name..)?), value, facts, &mut initrd, &mut core);
            }
            NOTHING => {}
            _ => return None,
        }
    }
    if let (Some(start), Some(end)) = initrd
        && start < end
    {
        facts.initrd = Some(start..end);
    }
    Some(())
}

/// One property of the node at the end of `path`.
fn property(
    path: &mut [Level<'_>],
    name: &str,
    value: &[u8],
    facts: &mut Handoff,
    initrd: &mut (Option<u64>, Option<u64>),
    core: &mut Core,
) {
    let count = || big_endian(value, 0).map(|cells| cells as usize);
    let Some((here, above)) = path.split_last_mut() else { return };
    let parent = above.last().copied();
    match name {
        "#address-cells" => here.address_cells = count().unwrap_or(2),
        "#size-cells" => here.size_cells = count().unwrap_or(1),
        _ => {}
    }
    let pairs = |parent: Level<'_>, each: &mut dyn FnMut(u64, u64)| {
        let mut rest = value;
        while let Some((start, after)) = cells(rest, parent.address_cells)
            && let Some((bytes, after)) = cells(after, parent.size_cells)
        {
            each(start, bytes);
            if after.len() == rest.len() {
                break; // no cells at all
            }
            rest = after;
        }
    };
    match (above, here.name, name) {
        ([], _, "model") => facts.model = keep(value),
        ([], _, "compatible") => {
            for entry in value.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()) {
                let _ = facts.compatible.push(keep(entry)); // the last ones say least
            }
        }
        ([], _, "memreserve") => {
            for pair in value.chunks_exact(8) {
                if let (Some(start), Some(bytes)) = (big_endian(pair, 0), big_endian(pair, 4)) {
                    facts.reserve(start.into(), bytes.into());
                }
            }
        }
        ([_], node, "reg") if node == "memory" || node.starts_with("memory@") => {
            if let Some(root) = parent {
                pairs(root, &mut |start, bytes| facts.add_bank(start, bytes));
            }
        }
        ([_], "emmc2bus", "dma-ranges") => {
            let (child, size) = (here.address_cells, here.size_cells);
            facts.sd_window = parent.and_then(|root| {
                let (bus, rest) = cells(value, child)?;
                let (memory, rest) = cells(rest, root.address_cells)?;
                let (bytes, rest) = cells(rest, size)?;
                // More than one range would be a board that nobody has seen: then there is no DMA.
                rest.is_empty().then_some(Window { bus, memory, bytes })
            });
        }
        ([_], node, "reg") if node.starts_with("pcie@") => {
            facts.pci = parent.and_then(|root| cells(value, root.address_cells)).map(|cell| cell.0);
        }
        ([_], "psci", "method") => facts.psci = Psci::named(text(value)),
        ([_], "chosen", "bootargs") => facts.set_arguments(value),
        ([_], "chosen", "linux,initrd-start") => initrd.0 = cells(value, value.len() / 4).map(|cell| cell.0),
        ([_], "chosen", "linux,initrd-end") => initrd.1 = cells(value, value.len() / 4).map(|cell| cell.0),
        ([_], "system", "linux,revision") => facts.revision = big_endian(value, 0),
        ([_, Level { name: "cpus", .. }], node, "enable-method") if node.starts_with("cpu@") => {
            facts.cores_by_psci |= text(value) == "psci";
        }
        ([_, Level { name: "reserved-memory", .. }], _, "reg") => {
            if let Some(parent) = parent {
                pairs(parent, &mut |start, bytes| facts.reserve(start, bytes));
            }
        }
        ([_, Level { name: "cpus", .. }], node, "reg") if node.starts_with("cpu@") => {
            core.number = parent.and_then(|parent| cells(value, parent.address_cells)).map(|cell| cell.0);
        }
        ([_, Level { name: "cpus", .. }], node, "cpu-release-addr") if node.starts_with("cpu@") => {
            core.word = cells(value, value.len() / 4).map(|cell| cell.0);
        }
        _ => {}
    }
}

/// Reads a list of tags; none if `bytes` does not begin with one.
pub fn from_tags(bytes: &[u8]) -> Option<Handoff> {
    let word = |at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    if word(4)? != TAG_CORE {
        return None;
    }
    let mut facts = Handoff { source: Source::Tags, ..Handoff::default() };
    let mut at = 0;
    while let (Some(words), Some(tag)) = (word(at), word(at + 4)) {
        let end = (words as usize).checked_mul(4).and_then(|length| at.checked_add(length));
        let Some(values) = end.and_then(|end| bytes.get(at + 8..end)) else {
            // A list ends with a tag of no words.
            facts.incomplete |= words != 0;
            break;
        };
        // In these two the order differs: memory is size, start; the RAM disk is start, size.
        let pair = || Some((word(at + 8)?, word(at + 12)?)).filter(|_| values.len() >= 8);
        match (tag, pair()) {
            (TAG_MEMORY, Some((bytes, start))) => facts.add_bank(start.into(), bytes.into()),
            (TAG_INITRD, Some((start, bytes))) if bytes > 0 => {
                facts.initrd = Some(u64::from(start)..u64::from(start) + u64::from(bytes));
            }
            (TAG_COMMAND_LINE, _) => facts.set_arguments(values),
            _ => {}
        }
        at += words as usize * 4;
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init)] // a list of one bank
    use super::*;
    use crate::trees::{self, GIB, Tree, Wanted};
    use std::string::String as Text;
    use std::vec::Vec as List;

    /// Shaped like a patched Raspberry Pi 4's with 8 GB: two-cell addresses, one-cell sizes.
    fn pi4() -> Tree {
        Tree::default()
            .reserve(0, 0x1000)
            .begin("")
            .cells("memreserve", &[0x3b40_0000, 0x04c0_0000])
            .bytes("compatible", b"raspberrypi,4-model-b\0brcm,bcm2711\0")
            .bytes("model", b"Raspberry Pi 4 Model B Rev 1.4\0")
            .cells("#address-cells", &[2])
            .cells("#size-cells", &[1])
            .begin("memory@0")
            .bytes("device_type", b"memory\0")
            .cells("reg", &[0, 0, 0x3b40_0000, 0, 0x4000_0000, 0xbc00_0000, 1, 0, 0x8000_0000])
            .end()
            .begin("chosen")
            .bytes("bootargs", b"console=mini onfault=stop\0")
            .cells("linux,initrd-start", &[0x0800_0000])
            .cells("linux,initrd-end", &[0, 0x0900_0000])
            .end()
            .begin("reserved-memory")
            .cells("#address-cells", &[1])
            .cells("#size-cells", &[1])
            .begin("nvram@0")
            .cells("reg", &[0x3ef6_4700, 0x100])
            .end()
            .begin("linux,cma")
            .cells("size", &[0x0400_0000])
            .end()
            .end()
            .begin("cpus")
            .cells("#address-cells", &[1])
            .cells("#size-cells", &[0])
            .begin("cpu@1")
            .cells("cpu-release-addr", &[0, 0xe0])
            .cells("reg", &[1])
            .end()
            .begin("cpu@3")
            .cells("reg", &[3])
            .cells("cpu-release-addr", &[0, 0xf0])
            .end()
            .end()
            .end()
    }

    #[test]
    fn what_someone_else_claims_is_reserved_once_and_only_in_ram() {
        let mut facts = Handoff::default();
        facts.add_bank(0, 0x4000_0000);
        facts.keep_out(0x3c00_0000..0x4000_0000);
        facts.keep_out(0x3d00_0000..0x3e00_0000);
        facts.keep_out(0x4000_0000..0x4400_0000);
        facts.keep_out(0x1000..0x1000);
        assert_eq!(facts.reserved[..], [0x3c00_0000..0x4000_0000]);
    }

    #[test]
    fn a_patched_raspberry_pi_tree_is_understood() {
        let facts = from_device_tree(&pi4().blob()).unwrap();
        assert_eq!(facts.source, Source::DeviceTree);
        assert_eq!(facts.banks[..], [0..0x3b40_0000, 0x4000_0000..0xfc00_0000, 0x1_0000_0000..0x1_8000_0000]);
        assert_eq!(facts.reserved[..], [0..0x1000, 0x3b40_0000..0x4000_0000, 0x3ef6_4700..0x3ef6_4800]);
        assert_eq!(facts.initrd, Some(0x0800_0000..0x0900_0000));
        assert!(facts.has_argument("console=mini") && facts.has_argument("onfault=stop"));
        assert!(!facts.has_argument("console"));
        assert_eq!(facts.model, "Raspberry Pi 4 Model B Rev 1.4");
        assert_eq!(facts.compatible[1], "brcm,bcm2711");
        assert_eq!(facts.release_words, [None, Some(0xe0), None, Some(0xf0)]);
        assert!(!facts.incomplete);
    }

    /// What a tree made for the tests says.
    fn read(tree: Tree) -> Handoff {
        let facts = from_device_tree(&tree.blob()).unwrap();
        assert!(!facts.incomplete);
        facts
    }

    #[test]
    fn a_raspberry_pi_5s_tree_tells_ram_carve_outs_monitor_cores_and_revision() {
        let wanted = Wanted { gib: 8, arguments: "onfault=stop", initrd: Some(0x1_4000_0000..0x1_8000_0001) };
        let facts = read(trees::pi5(&wanted));
        assert_eq!(facts.banks[..], [0..8 * GIB]);
        assert_eq!(facts.reserved[..], [trees::PI5_VIDEOCORE, 0..0x8_0000]);
        assert_eq!(facts.initrd, wanted.initrd, "beyond 4 GiB");
        assert_eq!(facts.psci, Some(Psci::MONITOR));
        assert!(facts.cores_by_psci);
        assert_eq!(facts.release_words, [None; 4]);
        assert_eq!(facts.revision, Some(0xd0_4170));
        assert_eq!(facts.model, "Raspberry Pi 5 Model B Rev 1.0");
        let board = crate::board::Board::detect(facts.compatible.iter().map(|name| name.as_str()), 0xd0b);
        assert_eq!(board.name, "Raspberry Pi 5");
        assert_eq!(
            board.release(&facts, board.firmware(&facts, 2)),
            crate::board::Release::Firmware(Psci::MONITOR)
        );
    }

    #[test]
    fn every_size_of_a_raspberry_pi_4_is_told_in_banks_of_less_than_4_gib() {
        let rest = GIB..0xfc00_0000;
        for (gib, banks) in [
            (1, &[][..]),
            (2, &[GIB..2 * GIB][..]),
            (4, &[rest.clone()][..]),
            (8, &[rest, 4 * GIB..6 * GIB, 6 * GIB..8 * GIB][..]),
        ] {
            let facts = read(trees::pi4(&Wanted { gib, ..Wanted::default() }));
            assert_eq!(facts.banks[0], 0..trees::PI4_VIDEOCORE.start);
            assert_eq!(facts.banks[1..], *banks, "{gib} GiB");
            assert_eq!(facts.reserved[..], [0..0x1000, trees::PI4_VIDEOCORE]);
            assert_eq!((facts.psci, facts.cores_by_psci), (None, false));
            assert_eq!(facts.release_words, [Some(0xd8), Some(0xe0), Some(0xe8), Some(0xf0)]);
        }
    }

    #[test]
    fn a_firmware_is_called_as_its_node_says() {
        let tree = |node: &str, method: &[u8]| {
            let tree = Tree::default().begin("").begin(node).bytes("method", method).end().end();
            from_device_tree(&tree.blob()).unwrap().psci
        };
        assert_eq!(tree("psci", b"hvc\0"), Psci::named("hvc"));
        assert_eq!(tree("psci", b"smc\0"), Psci::named("smc"));
        assert_ne!(tree("psci", b"hvc\0"), tree("psci", b"smc\0"));
        assert_eq!(tree("psci", b"telepathy\0"), None);
        assert_eq!(tree("scmi", b"smc\0"), None);
    }

    #[test]
    fn sixteen_gigabytes_in_two_cells() {
        let blob = Tree::default()
            .begin("")
            .cells("#address-cells", &[2])
            .cells("#size-cells", &[2])
            .begin("memory@0")
            .cells("reg", &[0, 0x8_0000, 4, 0])
            .end()
            .end()
            .blob();
        assert_eq!(from_device_tree(&blob).unwrap().banks[..], [0x8_0000..0x4_0008_0000]);
    }

    #[test]
    fn a_tree_cut_anywhere_never_leads_astray() {
        let whole = pi4().blob();
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            if length >= 8 {
                cut[4..8].copy_from_slice(&(length as u32).to_be_bytes());
            }
            if let Some(facts) = from_device_tree(&cut) {
                assert!(facts.banks.len() <= 3);
            }
        }
    }

    #[test]
    fn no_single_wrong_byte_makes_it_panic() {
        let whole = pi4().blob();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut wrong = whole.clone();
                wrong[at] = value;
                let _ = from_device_tree(&wrong);
            }
        }
    }

    #[test]
    fn nodes_nested_deeper_than_we_follow_end_the_reading() {
        let mut tree = Tree::default().begin("");
        for _ in 0..40 {
            tree = tree.begin("n");
        }
        assert!(from_device_tree(&tree.blob()).unwrap().incomplete);
    }

    #[test]
    fn something_else_is_no_tree() {
        assert!(from_device_tree(b"").is_none());
        assert!(from_device_tree(&[0xff; 64]).is_none());
        assert_eq!(device_tree_length(&[0xd0, 0x0d, 0xfe, 0xed, 0x7f, 0, 0, 0]), None);
    }

    fn tags(list: &[(u32, &[u32])]) -> List<u8> {
        let words = list.iter().flat_map(|(tag, values)| {
            [values.len() as u32 + 2, *tag].into_iter().chain(values.iter().copied())
        });
        words.chain([0, 0]).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn tags_as_the_emulator_leaves_them() {
        let line = u32::from_le_bytes(*b"semi");
        let rest = u32::from_le_bytes(*b"hos\0");
        let bytes = tags(&[
            (TAG_CORE, &[0, 4096, 0]),
            (TAG_MEMORY, &[0x3c00_0000, 0]),
            (TAG_INITRD, &[0x0800_0000, 0x1234]),
            (TAG_COMMAND_LINE, &[line, rest]),
        ]);
        let facts = from_tags(&bytes).unwrap();
        assert_eq!(facts.banks[..], [0..0x3c00_0000]);
        assert_eq!(facts.ram(), 0x3c00_0000);
        assert_eq!(facts.initrd, Some(0x0800_0000..0x0800_1234));
        assert_eq!(facts.arguments, "semihos");
        assert!(!facts.incomplete);
    }

    #[test]
    fn a_tag_that_is_longer_than_the_list_ends_it() {
        let mut bytes = tags(&[(TAG_CORE, &[]), (TAG_MEMORY, &[0x1000, 0])]);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let facts = from_tags(&bytes).unwrap();
        assert!(facts.banks.is_empty() && facts.incomplete);
        assert!(from_tags(&[0; 64]).is_none());
        assert!(from_tags(b"").is_none());
    }

    #[test]
    fn arguments_that_are_too_long_or_no_text_are_cut() {
        let long: Text = core::iter::repeat_n('ä', 600).collect();
        let mut facts = Handoff::default();
        facts.set_arguments(long.as_bytes());
        assert!(facts.incomplete);
        assert_eq!(facts.arguments.len(), ARGUMENTS_MAX);
        facts.set_arguments(b"ok\xff\xfe");
        assert_eq!(facts.arguments, "ok");
    }

    #[test]
    fn the_cards_controller_sees_memory_as_the_stepping_has_it_and_without_a_word_not_at_all() {
        let tree = |ranges: &[u32]| {
            let bus = Tree::default().begin("").cells("#address-cells", &[2]).cells("#size-cells", &[1]);
            let bus = bus.begin("emmc2bus").cells("#address-cells", &[2]).cells("#size-cells", &[1]);
            from_device_tree(&bus.cells("dma-ranges", ranges).end().end().blob()).unwrap().sd_window
        };
        // Stepping B0: an alias of the first GiB; C0: memory as it is.
        let (alias, same) = ([0, 0xc000_0000, 0, 0, 0x4000_0000], [0, 0, 0, 0, 0xfc00_0000]);
        assert_eq!(tree(&alias), Some(Window { bus: 0xc000_0000, memory: 0, bytes: 1 << 30 }));
        assert_eq!(tree(&same), Some(Window { bus: 0, memory: 0, bytes: 0xfc00_0000 }));
        assert_eq!(tree(&[]), None);
        assert_eq!(tree(&[0, 0, 0, 0]), None);
        assert_eq!(tree(&[alias, same].concat()), None);
        assert_eq!(from_device_tree(&pi4().end().blob()).unwrap().sd_window, None);
    }
}
