//! Loading a real model from a card by the controller's own hands and by the core's, in time that is counted in instructions.

use super::*;

/// The seconds that the board says it took to load.
#[track_caller]
fn seconds(banner: &str) -> f64 {
    let (_, rest) = banner.split_once("is loaded, with a context of ").expect("the model is loaded");
    let words = rest.split_once(" in ").and_then(|(_, rest)| rest.split_once(" s.")).expect("a time").0;
    words.parse().expect("seconds")
}

#[test]
fn smollm2_is_loaded_by_dma_in_fewer_instructions_than_by_the_core() {
    let card =
        Card::default().with_bytes("EMBODIOS.CFG", "ctx = 512\n").with_file(&path_of_smollm2()).unwrap();
    // As it comes, and without bit 19 of what the controller can do: ADMA2. One emulated nanosecond an instruction.
    let [by_dma, by_core] = [
        (&["-icount", "shift=0,sleep=off"][..], "by DMA"),
        (&["-icount", "shift=0,sleep=off", "-global", "sdhci-pci.capareg=0x157034b4"], "read 0 KiB by DMA"),
    ]
    .map(|(options, way)| {
        let mut rig = Rig::boot_with(Some(&card), |machine| {
            Emulator { machine: Machine::Virt, ..machine }.with_extra(options)
        });
        let result = rig.board.prompt(LATER);
        let banner = rig.check(result);
        let status = rig.answers("status", way);
        assert_eq!(way == "by DMA", !status.contains(" 0 KiB by DMA"), "{status}");
        seconds(&banner)
    });
    println!(
        "SmolLM2, from card to prompt on virt: {by_dma} s of emulated time by ADMA2, {by_core} s by the core"
    );
    assert!(by_dma < by_core, "{by_dma} s by DMA, {by_core} s by the core");
}
