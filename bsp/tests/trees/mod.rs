//! Device trees for tests: a writer, and what the boot loaders of the boards hand over, cut down to what is read.
//!
//! The shapes (cells, banks, `memreserve`, the cores' nodes) are those of `bcm2711-rpi-4-b.dts` and
//! `bcm2712-rpi-5-b.dts` after a boot loader has patched them for the board's RAM.
#![allow(dead_code)] // each test uses what it needs

use std::vec::Vec;

const BEGIN: u32 = 1;
const END: u32 = 2;
const PROPERTY: u32 = 3;
/// Bytes in front of the reservation block.
const HEAD: usize = 40;
pub const GIB: u64 = 1 << 30;

/// Builds a device tree the way `dtc` lays one out.
#[derive(Clone, Default)]
pub struct Tree {
    structure: Vec<u8>,
    strings: Vec<u8>,
    reservations: Vec<u8>,
}

impl Tree {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }
    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }
    /// Opens a node.
    pub fn begin(mut self, name: &str) -> Self {
        self.word(BEGIN);
        self.structure.extend(name.bytes().chain([0]));
        self.pad();
        self
    }
    /// Closes it.
    pub fn end(mut self) -> Self {
        self.word(END);
        self
    }
    /// A property of bytes.
    pub fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.word(PROPERTY);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.strings.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.pad();
        self
    }
    /// A property of 32-bit cells.
    pub fn cells(self, name: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &bytes)
    }
    /// An entry of the reservation block.
    pub fn reserve(mut self, start: u64, bytes: u64) -> Self {
        self.reservations.extend(start.to_be_bytes().into_iter().chain(bytes.to_be_bytes()));
        self
    }
    /// The whole.
    pub fn blob(mut self) -> Vec<u8> {
        self.word(9);
        self.reservations.extend([0; 16]);
        let structure = HEAD + self.reservations.len();
        let strings = structure + self.structure.len();
        let total = strings + self.strings.len();
        let head = [
            0xd00d_feed,
            total as u32,
            structure as u32,
            strings as u32,
            HEAD as u32,
            17,
            16,
            0,
            self.strings.len() as u32,
            self.structure.len() as u32,
        ];
        let mut blob: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
        blob.extend(self.reservations.iter().chain(&self.structure).chain(&self.strings));
        blob
    }

    /// `/psci`: how the firmware is called.
    fn psci(self, method: &[u8]) -> Self {
        let node = self.begin("psci").bytes("compatible", b"arm,psci-1.0\0arm,psci-0.2\0");
        node.bytes("method", method).end()
    }

    /// `/cpus`: four cores, each with what `fill` puts into its node.
    fn cores(self, fill: impl Fn(Self, u32) -> Self) -> Self {
        let mut tree = self.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
        for core in 0..4 {
            tree = fill(tree.begin(&std::format!("cpu@{core}")), core).end();
        }
        tree.end()
    }

    /// `/chosen`: boot arguments and where the initial RAM disk is.
    fn chosen(self, arguments: &str, initrd: Option<core::ops::Range<u64>>) -> Self {
        let mut text = Vec::from(arguments.as_bytes());
        text.push(0);
        let mut tree = self.begin("chosen").bytes("bootargs", &text);
        if let Some(disk) = initrd {
            tree =
                tree.cells("linux,initrd-start", &two(disk.start)).cells("linux,initrd-end", &two(disk.end));
        }
        tree.end()
    }
}

/// A number in two cells.
pub fn two(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

/// What is asked of a board's tree.
#[derive(Clone, Default)]
pub struct Wanted<'a> {
    /// RAM in GiB, as sold.
    pub gib: u64,
    /// Boot arguments.
    pub arguments: &'a str,
    /// The initial RAM disk.
    pub initrd: Option<core::ops::Range<u64>>,
}

/// VideoCore's share of a Raspberry Pi 4 with `gpu_mem=76`, the default: at the end of the first GiB.
pub const PI4_VIDEOCORE: core::ops::Range<u64> = 0x3b40_0000..0x4000_0000;
/// That of a Raspberry Pi 5.
pub const PI5_VIDEOCORE: core::ops::Range<u64> = 0x3fc0_0000..0x4000_0000;

/// A Raspberry Pi 4's tree: addresses of two cells, sizes of one, so a bank of 4 GiB is told in two. The peripherals
/// hide the last 64 MiB of the first 4 GiB.
pub fn pi4(wanted: &Wanted<'_>) -> Tree {
    let mut memory = Vec::from([0, 0, PI4_VIDEOCORE.start as u32]);
    let ends = [wanted.gib.min(4) * GIB, wanted.gib * GIB];
    if ends[0] > GIB {
        memory.extend([0, GIB as u32, (ends[0].min(0xfc00_0000) - GIB) as u32]);
    }
    for start in (4 * GIB..ends[1]).step_by(2 << 30) {
        memory.extend(two(start));
        memory.push((2 * GIB) as u32);
    }
    Tree::default()
        .reserve(0, 0x1000)
        .begin("")
        .cells("memreserve", &[PI4_VIDEOCORE.start as u32, (GIB - PI4_VIDEOCORE.start) as u32])
        .bytes("compatible", b"raspberrypi,4-model-b\0brcm,bcm2711\0")
        .bytes("model", b"Raspberry Pi 4 Model B Rev 1.4\0")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[1])
        .begin("memory@0")
        .bytes("device_type", b"memory\0")
        .cells("reg", &memory)
        .end()
        .chosen(wanted.arguments, wanted.initrd.clone())
        .cores(|node, core| {
            let words = [0, 0xd8 + core * 8];
            node.bytes("enable-method", b"spin-table\0")
                .cells("cpu-release-addr", &words)
                .cells("reg", &[core])
        })
        .end()
}

/// A Raspberry Pi 5's tree: addresses and sizes of two cells, RAM in one piece, TF-A's part of it a reserved node.
pub fn pi5(wanted: &Wanted<'_>) -> Tree {
    Tree::default()
        .begin("")
        .cells("memreserve", &[PI5_VIDEOCORE.start as u32, (GIB - PI5_VIDEOCORE.start) as u32])
        .bytes("compatible", b"raspberrypi,5-model-b\0brcm,bcm2712\0")
        .bytes("model", b"Raspberry Pi 5 Model B Rev 1.0\0")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .begin("system")
        .cells("linux,revision", &[0xd0_4170])
        .end()
        .begin("memory@0")
        .bytes("device_type", b"memory\0")
        .cells("reg", &[two(0), two(wanted.gib * GIB)].concat())
        .end()
        .chosen(wanted.arguments, wanted.initrd.clone())
        .begin("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .begin("atf@0")
        .cells("reg", &[0, 0, 0, 0x8_0000])
        .bytes("no-map", b"")
        .end()
        .end()
        .psci(b"smc\0")
        .cores(|node, core| node.bytes("enable-method", b"psci\0").cells("reg", &[core << 8]))
        .end()
}

/// A tree for QEMU's virt: RAM from 1 GiB on, which QEMU fills in, less what is reserved.
pub fn virt(wanted: &Wanted<'_>, reserved: &[core::ops::Range<u64>]) -> Tree {
    let mut tree = Tree::default()
        .begin("")
        .bytes("compatible", b"linux,dummy-virt\0")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .begin("memory@40000000")
        .bytes("device_type", b"memory\0")
        .cells("reg", &[two(GIB), two(wanted.gib * GIB)].concat())
        .end()
        .chosen(wanted.arguments, wanted.initrd.clone())
        .begin("pcie@10000000")
        .cells("reg", &[0x40, 0x1000_0000, 0, 0x1000_0000])
        .end()
        .psci(b"hvc\0")
        .begin("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2]);
    for range in reserved {
        tree = tree
            .begin(&std::format!("taken@{:x}", range.start))
            .cells("reg", &[two(range.start), two(range.end - range.start)].concat())
            .end();
    }
    tree.end().end()
}
