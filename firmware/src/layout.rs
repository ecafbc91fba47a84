//! Layout: who has which RAM, and with which rights it is mapped. Only reckoning: `boot` carries it out.
//!
//! RAM is what the boot loader told, less what is someone else's: VideoCore's share, the monitor's (the stub of a
//! Raspberry Pi 4, TF-A on a Pi 5), what the device tree reserves. Nobody else's RAM is mapped at all, so that not even
//! a guess of the processor reads there. The entry code's map, which this one replaces, has the image and the 2 MiB blocks in
//! which a device tree may be: what of those is reserved is known only once the tree was read.

use core::ops::Range;

use embodios_bsp::board::{Board, Release};
use embodios_bsp::cpu::mmu::{Access, MapError, PAGE, Tables};
use embodios_bsp::handoff::Handoff;
use heapless::Vec;

use crate::memory::{self, Joined, Ranges};

/// Address the image is linked for: `image.ld` says the same, and boot loaders that read no header use it.
pub const LINK_ADDRESS: u64 = 0x8_0000;

/// First page: spin table and tags of a Raspberry Pi 4. Nothing else lives there, and once the cores are out nobody may
/// touch it.
pub const PAGE_ZERO: Range<u64> = 0..PAGE;

/// RAM from here on is not used: QEMU's `virt` has its PCI bus there. A board has 16 GiB at most.
pub const RAM_END: u64 = 256 << 30;

/// Where the parts of the image are.
#[derive(Clone, Debug)]
pub struct Image {
    /// Executed.
    pub code: Range<u64>,
    /// Read.
    pub constants: Range<u64>,
    /// Written: data, zeroed data, early tables.
    pub data: Range<u64>,
    /// All cores' stacks with their guard pages.
    pub stacks: Range<u64>,
}

impl Image {
    /// All of it.
    pub fn all(&self) -> Range<u64> {
        self.code.start..self.stacks.end
    }

    /// Where an address within the image is in the ELF file, for `addr2line`.
    pub fn linked(&self, address: u64) -> Option<u64> {
        self.all().contains(&address).then(|| address - self.code.start + LINK_ADDRESS)
    }
}

/// What is to be done with RAM and devices.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is mapped, and how; what comes later counts.
    pub map: Vec<(Range<u64>, Access), 96>,
    /// RAM that nothing uses.
    pub free: Ranges,
    /// The long stretches of it, as they are mapped a second time.
    pub joined: Joined,
    /// Bytes of RAM that lie too high to be used.
    pub left_out: u64,
    /// The initial RAM disk, if it can be used.
    pub initrd: Option<Range<u64>>,
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn whole_pages(range: &Range<u64>) -> Range<u64> {
    range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE)
}

impl Plan {
    /// Reckons it for this hand-over, whose device tree lies at `tree`.
    pub fn new(
        handoff: &Handoff,
        tree: Option<&Range<u64>>,
        board: &Board,
        release: Release,
        image: &Image,
    ) -> Result<Self, MapError> {
        // Never RAM of ours, whatever a damaged hand-over says.
        let mut others = Vec::<Range<u64>, 8>::new();
        for range in [&PAGE_ZERO, &board.monitor].into_iter().chain(board.peripherals) {
            others.push(range.clone()).map_err(|_| MapError::Full)?;
        }
        let all = handoff.ram();
        let mut banks = handoff.banks.clone();
        banks.iter_mut().for_each(|bank| *bank = bank.start.min(RAM_END)..bank.end.min(RAM_END));
        let left_out = all - banks.iter().map(|bank| bank.end - bank.start).sum::<u64>();
        // A RAM disk outside RAM would be read from nowhere, and what lay where our own zeroed data is now is gone.
        // Some boot loaders reserve its place: that is for us.
        let within =
            |disk: &Range<u64>| banks.iter().any(|bank| bank.start <= disk.start && disk.end <= bank.end);
        let initrd = handoff
            .initrd
            .clone()
            .filter(|disk| within(disk) && !overlap(disk, &image.all()))
            .filter(|disk| !others.iter().any(|other| overlap(disk, other)));

        let mut taken = Ranges::new();
        for range in handoff.reserved.iter().chain(&others) {
            taken.push(range.clone()).map_err(|_| MapError::Full)?;
        }
        let mut map = Vec::new();
        let mut add = |range, access| map.push((range, access)).map_err(|_| MapError::Full);
        for range in memory::free_ranges(&banks, &taken) {
            add(range, Access::Data)?;
        }
        if let Some(disk) = &initrd {
            add(whole_pages(disk), Access::Data)?; // a model in it is rearranged where it lies
        }
        if let Some(tree) = tree {
            add(whole_pages(tree), Access::Constants)?;
        }
        for range in board.peripherals {
            add(range.clone(), Access::Device)?;
        }
        if let Release::Words(words) = release
            && words.iter().any(|word| PAGE_ZERO.contains(word))
        {
            add(PAGE_ZERO, Access::Data)?;
        }
        add(image.code.clone(), Access::Code)?;
        add(image.constants.clone(), Access::Constants)?;
        add(image.data.clone(), Access::Data)?;
        add(image.stacks.clone(), Access::Data)?;

        for range in tree.into_iter().chain(&initrd).chain([&image.all()]) {
            taken.push(range.clone()).map_err(|_| MapError::Full)?;
        }
        let free = memory::free_ranges(&banks, &taken);
        let joined = Joined::of(&free);
        Ok(Self { map, free, joined, left_out, initrd })
    }

    /// Has memory mapped that VideoCore has lent us for a picture: no RAM of ours.
    pub fn lend(&mut self, picture: &Range<u64>) -> Result<(), MapError> {
        self.map.push((whole_pages(picture), Access::Uncached)).map_err(|_| MapError::Full)
    }

    /// Writes the map into tables.
    pub fn fill<const N: usize>(&self, tables: &'static Tables<N>) -> Result<(), MapError> {
        self.map.iter().try_for_each(|(range, access)| tables.map(range.clone(), *access))?;
        self.joined.views().try_for_each(|(view, stretch)| tables.map_onto(view, stretch.start, Access::Data))
    }
}

#[cfg(test)]
#[path = "../../bsp/tests/trees/mod.rs"]
mod trees;

#[cfg(test)]
mod tests {
    use super::*;
    use embodios_bsp::cpu::mmu::BLOCK;
    use embodios_bsp::handoff::from_device_tree;
    use trees::{GIB, PI4_VIDEOCORE, PI5_VIDEOCORE, Tree, Wanted};

    const MIB: u64 = 1 << 20;
    /// As many tables as the image has.
    const TABLES: usize = 64;

    /// The image at this address: sizes as they are, more or less.
    fn image(at: u64) -> Image {
        let part = |from: u64, to: u64| at + from..at + to;
        Image {
            code: part(0, 0x14_0000),
            constants: part(0x14_0000, 0x1a_0000),
            data: part(0x1a_0000, 0x20_0000),
            stacks: part(0x20_0000, 0x40_0000),
        }
    }

    /// A plan, and the tables it fills.
    struct Planned {
        handoff: Handoff,
        board: &'static Board,
        plan: Plan,
        tables: &'static Tables<TABLES>,
    }

    /// What becomes of a board with this tree, entered at EL2.
    fn planned(tree: Tree, image: &Image) -> Planned {
        let blob = tree.blob();
        let handoff = from_device_tree(&blob).unwrap();
        let board = Board::detect(handoff.compatible.iter().map(|name| name.as_str()), 0);
        let release = board.release(&handoff, board.firmware(&handoff, 2));
        let place = 0x2eff_0000..0x2eff_0000 + blob.len() as u64; // where boot loaders like to put it
        let plan = Plan::new(&handoff, Some(&place), board, release, image).unwrap();
        let tables: &'static Tables<TABLES> = Box::leak(Box::new(Tables::new()));
        plan.fill(tables).unwrap();
        Planned { handoff, board, plan, tables }
    }

    impl Planned {
        /// What a walk to this address gives, without the address.
        fn rights(&self, address: u64) -> Option<u64> {
            let entry = self.tables.walk(address)? & !0x0000_ffff_ffff_f000;
            Some(entry & !2) // the bit that tells a page from a block
        }

        fn free(&self) -> u64 {
            self.plan.free.iter().map(|range| range.end - range.start).sum()
        }

        /// Holds for every board, whatever the size.
        fn check(&self, image: &Image, videocore: Range<u64>) {
            let Self { board, plan, .. } = self;
            for range in &plan.free {
                for address in [range.start, range.end - 1] {
                    assert_eq!(self.rights(address), Some(Access::Data.bits()), "{address:#x}");
                }
                let others = board.peripherals.iter().chain([&board.monitor, &videocore, &PAGE_ZERO]);
                for other in others.chain(&plan.initrd).chain([&image.all()]) {
                    assert!(!overlap(range, other), "{range:x?} is free and within {other:x?}");
                }
                let told = |address| self.handoff.banks.iter().any(|bank| bank.contains(&address));
                assert!(told(range.start) && told(range.end - 1), "{range:x?} is no RAM");
            }
            assert_eq!(self.rights(videocore.start), None, "not ours, not mapped");
            assert_eq!(self.rights(videocore.end - 1), None);
            assert_eq!(self.rights(image.code.start), Some(Access::Code.bits()));
            assert_eq!(self.rights(image.stacks.end - 1), Some(Access::Data.bits()));
            for address in [board.pl011.0, board.gic.0, board.gic.1] {
                assert_eq!(self.rights(address), Some(Access::Device.bits()));
            }
            for (view, stretch) in plan.joined.views() {
                assert!(plan.free.iter().any(|free| free.start <= stretch.start && stretch.end <= free.end));
                for (seen, is) in [(view.start, stretch.start), (view.end - 1, stretch.end - 1)] {
                    let entry = self.tables.walk(seen).unwrap() & 0x0000_ffff_ffff_f000;
                    let gib = entry == is & !(GIB - 1) && seen % GIB == is % GIB;
                    assert!(gib || entry == is & !(BLOCK - 1), "{entry:#x} is not in blocks");
                    assert_eq!(self.rights(seen), Some(Access::Data.bits()));
                }
            }
            assert!(self.tables.used() <= TABLES - 16, "{} tables", self.tables.used());
        }
    }

    #[test]
    fn every_size_of_both_boards_is_mapped_and_all_but_64_mib_is_free_for_models() {
        for at in [0x8_0000, 0x20_0000] {
            let image = image(at);
            for gib in [1, 2, 4, 8] {
                let wanted = Wanted { gib, ..Wanted::default() };
                let board = planned(trees::pi4(&wanted), &image);
                board.check(&image, PI4_VIDEOCORE);
                let hidden = if gib >= 4 { 64 * MIB } else { 0 };
                let all = gib * GIB - (PI4_VIDEOCORE.end - PI4_VIDEOCORE.start) - hidden;
                assert!(board.free() > all - 64 * MIB, "{gib} GiB: {} free", board.free());
                // The words by which the cores begin are there, and TF-A is not.
                assert_eq!(board.rights(0xd8), Some(Access::Data.bits()));
            }
            for gib in [1, 2, 4, 8, 16] {
                let wanted = Wanted { gib, ..Wanted::default() };
                let board = planned(trees::pi5(&wanted), &image);
                board.check(&image, PI5_VIDEOCORE);
                assert!(board.free() > gib * GIB - 68 * MIB, "{gib} GiB: {} free", board.free());
                for address in [0, 0x1000, 0x7_f000] {
                    assert_eq!(board.rights(address), None, "TF-A's {address:#x}");
                }
            }
        }
    }

    #[test]
    fn a_model_larger_than_4_gib_has_a_place_on_every_board_with_8() {
        const MODEL: u64 = 4900 * MIB; // an 8B model in four bits
        let image = image(0x8_0000);
        for (gib, holds) in [(4, false), (8, true), (16, true)] {
            let wanted = Wanted { gib, ..Wanted::default() };
            let mut boards = vec![planned(trees::pi5(&wanted), &image)];
            if gib <= 8 {
                boards.push(planned(trees::pi4(&wanted), &image));
            }
            for board in boards {
                let pieces = [MODEL, 500 * MIB, 500 * MIB];
                assert_eq!(
                    memory::hold(&board.plan.free, &pieces),
                    holds,
                    "{} with {gib} GiB",
                    board.board.name
                );
            }
        }
    }

    /// QEMU's virt with so many GiB.
    fn virt(gib: u64) -> Tree {
        Tree::default()
            .begin("")
            .bytes("compatible", b"linux,dummy-virt\0")
            .cells("#address-cells", &[2])
            .cells("#size-cells", &[2])
            .begin("memory@40000000")
            .cells("reg", &[0, 0x4000_0000, (gib >> 2) as u32, (gib << 30) as u32])
            .end()
            .end()
    }

    #[test]
    fn any_ram_that_an_emulated_machine_can_have_is_mapped_or_left_out_and_told() {
        let image = image(0x4008_0000);
        for gib in [1, 2, 27, 28, 64, 128, 254, 255, 256, 500] {
            let board = planned(virt(gib), &image);
            board.check(&image, 0x8000_0000_0000..0x8000_4000_0000);
            let used = gib.min(255);
            assert!(board.free() > used * GIB - 64 * MIB, "{gib} GiB: {} free", board.free());
            assert_eq!(board.plan.left_out, (gib - used) * GIB);
            let last = GIB + used * GIB;
            assert_eq!(board.rights(last - 1), Some(Access::Data.bits()));
            assert_eq!(board.rights(last), None);
            // A model of nearly all of it has a place.
            assert!(memory::hold(&board.plan.free, &[used * GIB - 900 * MIB]), "{gib} GiB");
        }
    }

    #[test]
    fn of_ram_in_long_stretches_no_more_is_joined_than_the_largest_board_has() {
        let long = |stretches: &[Range<u64>]| {
            Joined::of(stretches)
                .views()
                .map(|(_, stretch)| stretch.end - stretch.start)
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(long(&[GIB..13 * GIB, 20 * GIB..32 * GIB]), [12 * GIB, 4 * GIB]);
        assert_eq!(long(&[GIB..9 * GIB, 10 * GIB..18 * GIB, 20 * GIB..30 * GIB]), [8 * GIB, 8 * GIB]);
        assert_eq!(long(&[GIB..2 * GIB, 3 * GIB..19 * GIB]), [], "one of them holds what all are joined for");
        assert_eq!(long(&[0..4 * GIB, 5 * GIB..9 * GIB]), [4 * GIB, 4 * GIB]);
    }

    #[test]
    fn the_monitors_memory_stays_out_even_if_no_tree_reserves_it() {
        let image = image(0x20_0000);
        let tree = Tree::default()
            .begin("")
            .bytes("compatible", b"brcm,bcm2712\0")
            .cells("#address-cells", &[2])
            .cells("#size-cells", &[2])
            .begin("memory@0")
            .cells("reg", &[0, 0, 0, 0x4000_0000])
            .end()
            .end();
        let board = planned(tree, &image);
        assert_eq!(board.rights(0x7_f000), None);
        assert_eq!(board.rights(0x8_0000), Some(Access::Data.bits()));
        assert_eq!(board.plan.free[0].start, 0x8_0000);
    }

    #[test]
    fn a_model_that_the_boot_loader_brought_is_writable_wherever_it_lies_and_kept_out_of_all_else() {
        let image = image(0x8_0000);
        for (gib, disk) in [
            (2, 0x48_0000..0x2000_0123),
            (8, 0x4000_0000..0xb000_0000),      // beyond the first GiB
            (16, 0x1_4000_1000..0x3_0000_0000), // beyond 4 GiB, and longer than that
        ] {
            let wanted = Wanted { gib, initrd: Some(disk.clone()), ..Wanted::default() };
            // A loader may reserve the disk's place, too.
            for tree in [trees::pi5(&wanted), trees::pi5(&wanted).reserve(disk.start, disk.end - disk.start)]
            {
                let board = planned(tree, &image);
                board.check(&image, PI5_VIDEOCORE);
                assert_eq!(board.plan.initrd, Some(disk.clone()));
                for address in [disk.start, disk.end - 1] {
                    assert_eq!(board.rights(address), Some(Access::Data.bits()));
                }
                assert!(!board.plan.free.iter().any(|free| overlap(free, &disk)));
            }
        }
    }

    #[test]
    fn a_model_where_none_can_be_is_left_alone() {
        let image = image(0x8_0000);
        for disk in [
            0x20_0000..0x40_0000,           // over the image
            0x4_0000..0x8_0000,             // in TF-A's memory
            0x7ff0_0000..0x8010_0000,       // over the end of RAM
            0x10_7c00_0000..0x10_7d00_0000, // among the devices
        ] {
            let wanted = Wanted { gib: 2, initrd: Some(disk.clone()), ..Wanted::default() };
            let board = planned(trees::pi5(&wanted), &image);
            assert_eq!(board.plan.initrd, None, "{disk:x?}");
        }
    }

    #[test]
    fn a_picture_in_videocores_memory_is_mapped_past_the_caches_and_its_neighbours_are_not_mapped() {
        let mut board = planned(trees::pi4(&Wanted::default()), &image(0x8_0000));
        let picture = PI4_VIDEOCORE.start + 0x10_0000..PI4_VIDEOCORE.start + 0x10_0000 + 960 * 540 * 2;
        board.plan.lend(&picture).unwrap();
        board.tables = Box::leak(Box::new(Tables::new()));
        board.plan.fill(board.tables).unwrap();
        assert_eq!(board.rights(picture.start), Some(Access::Uncached.bits()));
        assert_eq!(board.rights(picture.end - 1), Some(Access::Uncached.bits()));
        assert_eq!(board.rights(picture.start - 1), None);
        assert_eq!(board.rights(picture.end + PAGE), None);
    }

    #[test]
    fn an_address_of_the_image_is_found_in_the_elf_file_wherever_the_image_is() {
        let image = image(0x4008_0000);
        assert_eq!(image.linked(0x4008_1234), Some(0x8_1234));
        assert_eq!(image.linked(0x4008_0000 - 1), None);
        assert_eq!(image.linked(image.stacks.end), None);
    }
}
