//! Both boards' facts against the device trees of Debian's kernel package, which `cargo embodi setup` fetches. Without them
//! these tests are skipped, and say so.
//!
//! The reader here shares nothing with the one in `handoff.rs`, which is tested on the same trees.

use embodios_bsp::board::{Board, Release, rpi4, rpi5};
use embodios_bsp::cpu::psci::Psci;
use embodios_bsp::handoff::{self, Source};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// A tree: the properties of each node, by its path and theirs.
struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// Takes a blob apart: Devicetree Specification 0.4, 5.4. A damaged one fails the test.
    fn new(blob: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize;
        let text =
            |at: usize| String::from_utf8_lossy(blob[at..].split(|&b| b == 0).next().unwrap()).into_owned();
        let (mut at, strings) = (word(8), word(12));
        let (mut path, mut properties) = (Vec::new(), BTreeMap::new());
        loop {
            at += 4;
            match word(at - 4) {
                1 => {
                    let name = text(at);
                    at += (name.len() + 1).next_multiple_of(4);
                    path.push(name);
                }
                2 => drop(path.pop()),
                3 => {
                    let (length, name) = (word(at), text(strings + word(at + 4)));
                    properties
                        .insert(format!("{}/{name}", path.join("/")), blob[at + 8..][..length].to_vec());
                    at += 8 + length.next_multiple_of(4);
                }
                4 => {}
                9 => return Self(properties),
                token => panic!("token {token}"),
            }
        }
    }

    fn cells(&self, property: &str) -> Vec<u64> {
        let bytes = self.0.get(property).unwrap_or_else(|| panic!("the tree has no {property}"));
        bytes.chunks_exact(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap()).into()).collect()
    }

    /// The `index`th register block of a node on a bus of the root, as the CPU sees it.
    fn place(&self, node: &str, index: usize) -> u64 {
        let bus = node.rsplit_once('/').unwrap().0;
        let count = |what: &str| self.cells(&format!("{bus}/#{what}-cells"))[0] as usize;
        let (address, size) = (count("address"), count("size"));
        let join = |cells: &[u64]| cells.iter().fold(0, |value, cell| value << 32 | cell);
        let reg = self.cells(&format!("{node}/reg"));
        let child = join(&reg[index * (address + size)..][..address]);
        let ranges = self.cells(&format!("{bus}/ranges"));
        let row = address + 2 + size; // the root has two cells for an address on both boards
        let inside = |range: &[u64]| {
            let (from, to) = (join(&range[..address]), join(&range[address..address + 2]));
            let length = join(&range[address + 2..]);
            (from..from + length).contains(&child).then(|| child - from + to)
        };
        ranges.chunks_exact(row).find_map(inside).unwrap_or_else(|| panic!("{node} is not on its bus"))
    }

    /// The first interrupt of a node: shared ones begin at 32 (Arm GIC architecture specification, 2.2.1).
    fn interrupt(&self, node: &str) -> u64 {
        let cells = self.cells(&format!("{node}/interrupts"));
        assert_eq!(cells[0], 0, "{node} has a shared interrupt");
        cells[1] + 32
    }
}

/// A tree of Debian's kernel package.
fn blob(name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cache/boot-files/linux-image-arm64");
    let blob = std::fs::read(folder.join(name)).ok();
    if blob.is_none() {
        let line = format!(
            "SKIPPED {name}: Debian's device trees are not here; `cargo embodi setup` fetches them\n"
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    blob
}

/// What both boards have.
fn same(tree: &Tree, board: &Board, nodes: [&str; 3]) {
    let [uart, interrupts, mailbox] = nodes;
    assert_eq!(board.pl011, (tree.place(uart, 0), tree.interrupt(uart) as u32));
    assert_eq!(board.gic, (tree.place(interrupts, 0), tree.place(interrupts, 1)));
    assert_eq!(board.mailbox, Some(tree.place(mailbox, 0)));
}

#[test]
fn a_raspberry_pi_4_is_as_debians_tree_says() {
    for name in ["bcm2711-rpi-4-b.dtb", "bcm2711-rpi-400.dtb"] {
        let Some(blob) = blob(name) else { return };
        let (tree, board) = (Tree::new(&blob), &rpi4::BOARD);
        same(
            &tree,
            board,
            ["/soc/serial@7e201000", "/soc/interrupt-controller@40041000", "/soc/mailbox@7e00b880"],
        );
        let mini = "/soc/serial@7e215040"; // the second part of the auxiliary block
        assert_eq!(board.mini_uart, Some((tree.place(mini, 0) - 0x40, tree.interrupt(mini) as u32)));
        assert_eq!(board.gpio, Some(tree.place("/soc/gpio@7e200000", 0)));
        assert_eq!(board.power, Some(tree.place("/soc/watchdog@7e100000", 0)));
        let card = "/emmc2bus/mmc@7e340000";
        assert_eq!(board.sd_host, Some((tree.place(card, 0), tree.interrupt(card) as u32)));
        if name == "bcm2711-rpi-4-b.dtb" {
            let light = tree.cells("/leds/led-act/gpios");
            let pin = board.led.map(|led| (led.number as u64, led.high));
            assert_eq!(pin, Some((light[1], light[2] == 0)));
        }

        let facts = handoff::from_device_tree(&blob).unwrap();
        assert_eq!((facts.source, facts.incomplete), (Source::DeviceTree, false));
        assert!(std::ptr::eq(
            Board::detect(facts.compatible.iter().map(|name| name.as_str()), 0),
            board_of(board)
        ));
        assert_eq!(facts.release_words, [0xd8, 0xe0, 0xe8, 0xf0].map(Some));
        assert_eq!((facts.psci, facts.cores_by_psci), (None, false));
        assert_eq!(
            board.release(&facts, board.firmware(&facts, 2)),
            Release::Words([0xd8, 0xe0, 0xe8, 0xf0])
        );
        assert!(facts.banks.is_empty(), "RAM is told by the boot loader, who has not seen this tree");
        let window = facts.sd_window.expect("`dma-ranges` of `emmc2bus`");
        assert_eq!(tree.cells("/emmc2bus/dma-ranges"), [0, 0xc000_0000, 0, 0, 0x4000_0000]);
        assert_eq!((window.bus, window.memory, window.bytes), (0xc000_0000, 0, 0x4000_0000));
    }
}

#[test]
fn a_raspberry_pi_5_is_as_debians_tree_says() {
    let Some(blob) = blob("bcm2712-rpi-5-b.dtb") else { return };
    let (tree, board) = (Tree::new(&blob), &rpi5::BOARD);
    let soc = "/soc@107c000000";
    let [uart, interrupts, mailbox, card, pins] = [
        "serial@7d001000",
        "interrupt-controller@7fff9000",
        "mailbox@7c013880",
        "mmc@fff000",
        "gpio@7d517c00",
    ]
    .map(|node| format!("{soc}/{node}"));
    same(&tree, board, [&uart, &interrupts, &mailbox]);
    assert_eq!(board.sd_host, Some((tree.place(&card, 0), tree.interrupt(&card) as u32)));
    let slot = board.sd_slot.unwrap();
    assert_eq!((slot.config, slot.pins), (tree.place(&card, 1), tree.place(&pins, 0)));
    let monitor = tree.cells("/reserved-memory/atf@0/reg");
    assert_eq!(
        [monitor[0], monitor[1], monitor[2], monitor[3]],
        [0, board.monitor.start, 0, board.monitor.end]
    );

    let facts = handoff::from_device_tree(&blob).unwrap();
    assert_eq!((facts.source, facts.incomplete), (Source::DeviceTree, false));
    assert!(std::ptr::eq(
        Board::detect(facts.compatible.iter().map(|name| name.as_str()), 0),
        board_of(board)
    ));
    assert_eq!((facts.psci, facts.cores_by_psci), (Some(Psci::MONITOR), true));
    assert_eq!(board.release(&facts, board.firmware(&facts, 2)), Release::Firmware(Psci::MONITOR));
    assert!(facts.reserved.contains(&board.monitor), "{:x?}", facts.reserved);
    for (core, cell) in [0, 0x100, 0x200, 0x300].into_iter().enumerate() {
        assert_eq!(
            tree.cells(&format!("/cpus/cpu@{core}/reg")),
            [cell],
            "cores are counted in affinity level 1"
        );
    }
}

/// The row of the table of boards for this one.
fn board_of(board: &Board) -> &'static Board {
    embodios_bsp::board::BOARDS.iter().find(|row| row.compatible == board.compatible).unwrap()
}
