//! The image on a Raspberry Pi 5, which nobody emulates: `tests/pi5` plays one on QEMU's virt machine.
//!
//! What the board would not forgive (a write to UART10's divisors, TF-A's memory used or mapped, a register that is not there, a call for a
//! core that is named wrongly) ends the run with a sentence that begins with PANIC, which fails any wait.

use super::*;
use trees::Wanted;

/// Where the model has the guest's RAM in that of virt.
const RAM: u64 = 0x8000_0000;
/// Where the guest has its model.
const DISK: u64 = 0x3000_0000;

/// What the model is asked for: bits of a word in virt's RAM.
const WISHES: u64 = 0x7fff_0000;
const NO_TREE: u32 = 1;
const STEPPING_C1: u32 = 2;
const CABLE_AT_THE_HEADER: u32 = 4;
const RP1_CLOSED: u32 = 8;
const OLDER_WINDOW: u32 = 16;
const SYSTEM_ERRORS: u32 = 32;
const UNTOUCHED_UART: u32 = 64;
const LIGHT_TOLD: u32 = 128;

/// A Raspberry Pi 5 with 4 GiB, with this model brought by its boot loader, if any.
fn pi5(model: &[u8], arguments: &str, wishes: u32) -> Rig {
    pi5_with(model, arguments, wishes, None)
}

/// The same with a card.
fn pi5_with(model: &[u8], arguments: &str, wishes: u32, card: Option<&Card>) -> Rig {
    begun(fs::read(kernel()).unwrap(), model, arguments, wishes, card)
}

/// The same with this image.
fn begun(image: Vec<u8>, model: &[u8], arguments: &str, wishes: u32, card: Option<&Card>) -> Rig {
    static PLAYED: OnceLock<build::Kernel> = OnceLock::new();
    let played = PLAYED.get_or_init(|| build::pi5_model().unwrap_or_else(|error| panic!("{error:#}")));
    let scratch = Scratch::new().expect("a folder for the model");
    let initrd = (!model.is_empty()).then(|| DISK..DISK + model.len() as u64);
    let tree = trees::pi5(&Wanted { gib: 4, arguments, initrd }).blob();
    let mut options = vec!["-M".to_owned(), "virtualization=on".to_owned()];
    for (name, bytes, at) in [
        ("kernel8.img", image, RAM + 0x8_0000),
        ("board.dtb", tree, RAM + 0x2eff_0000),
        ("model.gguf", model.to_vec(), RAM + DISK),
        ("wishes", wishes.to_le_bytes().to_vec(), WISHES),
    ] {
        let path = scratch.path().join(name);
        fs::write(&path, &bytes).unwrap();
        if !bytes.is_empty() {
            let place = format!("loader,file={},addr={at:#x},force-raw=on", path.display());
            options.extend(["-device".to_owned(), place]);
        }
    }
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut emulator = Emulator::new(Machine::Virt, &played.image).with_memory("5G").with_extra(&words);
    if let Some(card) = card {
        let path = scratch.path().join("card.img");
        card.write(&path).unwrap_or_else(|error| panic!("{error:#}"));
        emulator = emulator.with_card(&path);
    }
    let board = emulator.start().unwrap_or_else(|error| panic!("{error:#}"));
    Rig { board, _scratch: scratch }
}

#[test]
fn a_raspberry_pi_5_answers_with_a_model_that_its_boot_loader_brought() {
    let model = tiny("Q4_K");
    let digest = Here::new(model.clone()).digest("hello");
    let mut rig = pi5(&model, "", 0);
    let banner = rig.prompt();
    rig.holds(&banner, "Raspberry Pi 5 Model B Rev 1.0, 4 x Cortex-A76, 4096 MiB, level dotprod");
    rig.holds(&banner, "tiny is loaded");
    rig.answers("digest hello", &digest);
    // VideoCore knows some tags only. Asked for the banner and for this it has no complaint, later it has. The boot
    // loader hands over at 1500 MHz: that the clock is at its most was asked for.
    let status = rig.answers("status", "revision c04170");
    for words in ["Arm clock 2400 MHz of 2400", "temperature  61.5 C", "power        good"] {
        rig.holds(&status, words);
    }
    rig.ask("set limit 4");
    rig.answers("hello", "[slower: throttled, 61.5 C, Arm clock 2400 MHz]");
    let again = rig.ask("hello");
    assert!(!again.contains("throttled"), "once a change: {again}");
    let memory = rig.answers("mem", "boot loader  0x0000000000-0x0000080000");
    rig.holds(&memory, "boot loader  0x003fc00000-0x0040000000");
    let selftest = rig.answers("selftest 16", "cores        ok: 4 answered, MIDR 0x414fd0b1");
    rig.holds(&selftest, "interrupts   ok: wake-ups reach 4 cores, the timer's core 0");
    for words in
        ["timer        ok: ", "kernels      ok: ", "memory       ok: ", "summary      FAILED: card; 5 ok"]
    {
        rig.holds(&selftest, words); // the slot is empty
    }
    rig.answers("set console mini-uart", "no mini-UART");
    rig.answers("set prefetch 1", "Only a Cortex-A72");
    fall(&mut rig, "read 3", "EXCEPTION on core 3");
    rig.board.type_line("off");
    assert!(rig.exit().success());
}

#[test]
fn what_an_open_line_gives_before_the_prompt_is_thrown_away_and_what_was_typed_ahead_is_not() {
    let model = tiny("Q4_0");
    let digest = Here::new(model.clone()).digest("hello");
    // From the banner on the stages of the light leave it the time to come; the receiver holds 16 bytes meanwhile.
    for (sent, answered) in [(&b"hello\xff\xfe\x03\xf8\r"[..], false), (b"digest hello\r", true)] {
        let mut rig = pi5(&model, "light=stages", 0);
        let banner = rig.board.expect("no operating system", LATER);
        rig.check(banner);
        rig.board.send(sent);
        let loaded = rig.board.expect("tiny is loaded", LATER);
        rig.check(loaded);
        if answered {
            let answer = rig.board.expect(&digest, LATER);
            rig.check(answer);
        }
        let rest = rig.board.prompt(LATER);
        let rest = rig.check(rest);
        assert!(!rest.contains("hello"), "{rest}");
        rig.answers("digest hello", &digest);
    }
}

#[test]
fn a_raspberry_pi_5_without_a_device_tree_is_known_by_its_cores_and_asks_videocore() {
    for stepping in [0, STEPPING_C1] {
        let mut rig = pi5(&[], "", NO_TREE | stepping);
        let banner = rig.prompt();
        rig.holds(&banner, "Raspberry Pi 5, 4 x Cortex-A76, 1020 MiB, level dotprod");
        rig.answers("hello", "No model is loaded");
        rig.board.type_line("off");
        assert!(rig.exit().success());
    }
}

#[test]
fn the_debug_port_of_a_raspberry_pi_5_gets_a_speed_where_its_boot_loader_has_set_none() {
    let mut rig = pi5(&[], "", UNTOUCHED_UART);
    let banner = rig.prompt();
    rig.holds(&banner, "Raspberry Pi 5 Model B Rev 1.0");
    fall(&mut rig, "read", "EXCEPTION on core 0");
}

#[test]
fn a_raspberry_pi_5_reads_its_card_with_the_slots_own_switches_and_gives_it_back_whichever_way_it_leaves() {
    let card = tiny_card();
    let mut rig = pi5_with(&[], "", 0, Some(&card));
    let banner = rig.prompt();
    rig.holds(&banner, "Loading tiny.gguf");
    rig.holds(&banner, "tiny is loaded");
    rig.answers("digest hello", &Here::new(tiny("Q4_0")).digest("hello"));
    rig.answers("status", "card         SD");
    // The model refuses a restart that leaves the card as it was used.
    rig.board.type_line("reboot");
    rig.expect("EMBODIOS Ready.");
    rig.prompt();
    fall(&mut rig, "read 2", "EXCEPTION on core 2");
    rig.board.type_line("off");
    assert!(rig.exit().success());
}

#[test]
fn the_header_of_a_raspberry_pi_5_is_the_console_where_that_is_asked_for_and_rp1_is_open() {
    // Nobody hears the debug port: what is read here came through RP1.
    let mut rig = pi5(&tiny("Q4_0"), "console=rp1", CABLE_AT_THE_HEADER);
    let banner = rig.prompt();
    rig.holds(&banner, "tiny is loaded");
    let long =
        "tokens a paste that is longer than the receiver's bytes, which is looked at every other millisecond";
    rig.answers(long, "tokens");
    fall(&mut rig, "read 1", "EXCEPTION on core 1");
    // Closed, the debug port goes on and says what to do.
    let mut rig = pi5(&[], "console=rp1", RP1_CLOSED);
    let banner = rig.prompt();
    rig.holds(&banner, "No UART answers behind RP1");
    rig.answers("set console rp1", "`enable_rp1_uart=1` and `pciex4_reset=0`");
    // An older boot loader has RP1 in the other window.
    let mut rig = pi5(&[], "console=rp1", CABLE_AT_THE_HEADER | OLDER_WINDOW);
    rig.prompt();
    rig.answers("help", "selftest");
    // On other boards there is none to be looked for.
    let mut rig = Rig::boot_with(None, |machine| machine);
    rig.prompt();
    rig.answers("set console rp1", "No UART answers behind RP1");
}

#[test]
fn a_window_that_answers_with_a_system_error_is_one_in_which_rp1_is_not() {
    // Closed: by the boot arguments, and by the same setting at the prompt, when system errors are no longer masked.
    let mut rig = pi5(&tiny("Q4_0"), "console=rp1", RP1_CLOSED | SYSTEM_ERRORS);
    let banner = rig.prompt();
    rig.holds(&banner, "No UART answers behind RP1");
    rig.holds(&banner, "The console is the pl011.");
    rig.holds(&banner, "tiny is loaded");
    let mut rig = pi5(&[], "", RP1_CLOSED | SYSTEM_ERRORS);
    rig.prompt();
    rig.answers("set console rp1", "No UART answers behind RP1");
    rig.answers("help", "selftest");
    // Open, and in the second window that is tried.
    let mut rig = pi5(&[], "console=rp1", CABLE_AT_THE_HEADER | OLDER_WINDOW | SYSTEM_ERRORS);
    rig.prompt();
    rig.answers("help", "selftest");
}

#[test]
fn a_fault_of_a_raspberry_pi_5_before_there_are_words_for_it_flickers_too() {
    // The model's guest begins at EL1; the second of these is met with the MMU on.
    for instruction in [light::AT_EL1, light::WITH_MMU] {
        let mut rig = begun(light::broken(instruction), &[], "", LIGHT_TOLD, None);
        for _ in 0..3 {
            rig.expect("the light is lit");
            rig.expect("the light is out");
        }
    }
}
