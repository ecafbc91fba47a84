//! A board whose interrupt controller belongs to the secure side: no interrupt ever comes, and everything works all the same.
//!
//! QEMU's virt has such a controller with `secure=on`, all of whose lines are in group 0 after reset. A stub of nine words
//! at EL3, which does not touch it, starts the image at EL2, as some boot loader might.

use super::*;

/// Where the image, the stub and the device tree (QEMU's own place for it) are.
const IMAGE: u64 = 0x4020_0000;
const STUB: u64 = 0x4400_0000;

/// Begins the image at EL2, non-secure, with x0 = 0x4000_0000.
const LEAVES_THE_CONTROLLER_ALONE: [u32; 9] = [
    0xd2a8_0000, // mov x0, #0x40000000
    0xd280_b621, // mov x1, #0x5b1: 64-bit below, HVC, SMC undefined, non-secure
    0xd51e_1101, // msr scr_el3, x1
    0xd51e_115f, // msr cptr_el3, xzr
    0xd280_7921, // mov x1, #0x3c9: EL2, own stack pointer, all masked
    0xd51e_4001, // msr spsr_el3, x1
    0xd2a8_0401, // mov x1, #0x40200000
    0xd51e_4021, // msr elr_el3, x1
    0xd69f_03e0, // eret
];

/// Virt with both sides of the controller, so many cores, this stub and this card.
fn begun_by(stub: &[u32], cores: usize, card: &Card) -> Rig {
    let scratch = Scratch::new().expect("a folder for the card");
    let path = |name: &str| scratch.path().join(name);
    let words: Vec<u8> = stub.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(path("stub"), words).unwrap();
    card.write(&path("card.img")).unwrap_or_else(|error| panic!("{error:#}"));
    let raw = |file: &Path, at: u64| format!("loader,file={},addr={at:#x},force-raw=on", file.display());
    let (image, stub) = (raw(kernel(), IMAGE), raw(&path("stub"), STUB));
    // All cores begin there, and those but the first wait in the image's entry code.
    let begins: Vec<_> = (0..cores).map(|core| format!("loader,addr={STUB:#x},cpu-num={core}")).collect();
    let begin: Vec<_> = begins.iter().flat_map(|begin| ["-device", begin]).collect();
    let board = Emulator::new(Machine::Virt, Path::new(""))
        .with_memory("1G")
        .with_card(&path("card.img"))
        .with_extra(&["-M", "virtualization=on,secure=on", "-smp", &cores.to_string()])
        .with_extra(&["-device", &image, "-device", &stub])
        .with_extra(&begin)
        .start()
        .unwrap_or_else(|error| panic!("{error:#}"));
    Rig { board, _scratch: scratch }
}

#[test]
fn a_board_without_interrupts_says_so_and_answers_on_one_core_and_on_four() {
    let digest = Here::new(tiny("Q4_0")).digest("hello");
    for cores in [1, 4] {
        let words = format!("No interrupt reaches {cores} of {cores} cores");
        let mut rig = begun_by(&LEAVES_THE_CONTROLLER_ALONE, cores, &tiny_card());
        let banner = rig.prompt();
        rig.holds(&banner, &words);
        rig.holds(&banner, "tiny is loaded");
        rig.answers("digest hello", &digest);
        rig.answers("hello", "prefill");
        rig.answers("status", &format!("interrupts   {words}"));
        rig.answers("selftest 1", &format!("interrupts   failed: {words}"));
        // Ctrl-C, too, is looked for.
        rig.ask("set limit 100000");
        rig.board.type_line("hello");
        let begun = rig.board.until("an answer", SOON, |text| {
            text.lines().nth(1).is_some_and(|line| line.len() > 8 && !line.starts_with("reading"))
        });
        rig.check(begun);
        rig.board.send(b"\x03");
        let stopped = rig.prompt();
        rig.holds(&stopped, "stopped]");
    }
}
