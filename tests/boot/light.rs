//! The activity light, as the emulated pin shows it.

use super::*;
use embodi::qemu::monitor::Monitor;
use std::time::Instant;

/// Longest time of the board, in microseconds, between two looks that can miss no flash and no gap between flashes.
const UNSEEN: u32 = 100_000;
/// Longer than any gap between flashes, shorter than any pause, in microseconds of the board.
const PAUSE: u32 = 600_000;

/// Looks at the light, and lets the board run only in between: however busy this PC is, little happens unseen.
struct Watch(Monitor);

impl Watch {
    fn new(socket: &Path) -> Self {
        Self(Monitor::connect(socket).unwrap_or_else(|error| panic!("{error:#}")))
    }

    fn tell(&mut self, command: &str) -> String {
        self.0.ask(command).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A word of the board's memory.
    fn word(&mut self, address: u32) -> u32 {
        let answer = self.tell(&format!("xp /1wx {address:#x}"));
        let word = answer.split_once("0x").map(|(_, word)| word.trim()).unwrap_or_default();
        u32::from_str_radix(word, 16).unwrap_or_else(|_| panic!("no register: {answer:?}"))
    }

    /// Level of pin 42: bit 10 of the levels of pins 32 to 53 (GPLEV1).
    fn lit(&mut self) -> bool {
        self.word(0xfe20_0038) >> 10 & 1 == 1
    }

    /// Lets the board run for a moment; gives its own time in microseconds (system timer), and whether the light is lit.
    fn step(&mut self) -> (u32, bool) {
        self.tell("cont");
        std::thread::sleep(Duration::from_millis(12));
        self.tell("stop");
        (self.word(0xfe00_3004), self.lit())
    }

    /// Watches until two rounds in a row, each seen without a gap from one pause to the next, have as many flashes; gives
    /// how long each flash of the second was, in microseconds.
    fn rounds(&mut self) -> Vec<u32> {
        let end = Instant::now() + SOON;
        let (mut last, mut was) = self.step();
        let mut since = last;
        let (mut before, mut round) = (None::<Vec<u32>>, None::<Vec<u32>>);
        while Instant::now() < end {
            let (now, is) = self.step();
            if now.wrapping_sub(last) > UNSEEN {
                (round, since, was) = (None, now, is);
            }
            last = now;
            if is == was {
                continue;
            }
            let took = now.wrapping_sub(since);
            (since, was) = (now, is);
            if is && took > PAUSE {
                if let Some(seen) = round.replace(vec![]) {
                    if before.as_ref().is_some_and(|before| before.len() == seen.len()) {
                        return seen;
                    }
                    before = Some(seen);
                }
            } else if !is && let Some(round) = &mut round {
                round.push(took);
            }
        }
        panic!("no pattern was seen twice: {before:?}");
    }
}

/// Boots with a monitor.
fn watched(card: Option<&Card>, arguments: &str) -> (Rig, Scratch, PathBuf) {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("monitor");
    let rig = Rig::boot_with(card, |machine| machine.with_monitor(&socket).with_arguments(arguments));
    (rig, scratch, socket)
}

#[test]
fn flashes_say_why_there_is_no_model_and_a_blink_that_there_is_one() {
    let broken = Card::default().with_bytes("broken.gguf", tiny("Q4_0")[..5000].to_vec());
    let empty = Card::default().with_bytes("README.TXT", "nothing here");
    for (card, flashes) in [(None, 2), (Some(&empty), 4), (Some(&broken), 5), (Some(&tiny_card()), 1)] {
        let (mut rig, _scratch, socket) = watched(card, "");
        rig.prompt();
        assert_eq!(Watch::new(&socket).rounds().len(), flashes, "{}", rig.board.transcript());
    }
}

#[test]
fn a_fault_on_the_way_to_the_prompt_is_a_long_flash_and_as_many_short_ones_as_the_stage() {
    for stage in [1, 4] {
        let (mut rig, _scratch, socket) = watched(None, &format!("onfault=stop fault={stage}"));
        rig.expect("PANIC on core 0: provoked by the boot argument fault=");
        rig.expect("switch the board off and on");
        // A console that works begins with the banner, whatever comes then.
        let first = rig.board.transcript().trim_start().lines().next().unwrap_or_default().to_owned();
        let expected = if stage == 4 { "EMBODIOS " } else { "PANIC on core 0" };
        assert!(first.starts_with(expected), "{first}");
        let flashes = Watch::new(&socket).rounds();
        assert_eq!(flashes.len(), 1 + stage, "{flashes:?}");
        let (long, short) = flashes.split_first().unwrap();
        assert!(short.iter().all(|short| long > short), "{flashes:?}");
    }
}

/// How often the light was lit between pauses, up to the fault that ends the start. A busy PC may have missed some.
fn groups_until_the_fault() -> Vec<usize> {
    let scratch = Scratch::new().unwrap();
    let socket = scratch.path().join("monitor");
    // `-S`: nothing happens before we look.
    let mut rig = Rig::boot_with(None, |machine| {
        let machine = machine.with_monitor(&socket).with_extra(&["-S"]);
        machine.with_arguments("light=stages onfault=stop fault=3")
    });
    let mut watch = Watch::new(&socket);
    let (mut since, mut was) = watch.step();
    let (mut groups, end) = (vec![0], Instant::now() + SOON);
    while Instant::now() < end {
        let (now, is) = watch.step();
        if is == was {
            continue;
        }
        match (is, groups.last_mut()) {
            (true, Some(group)) if now.wrapping_sub(since) < PAUSE => *group += 1,
            (true, _) => groups.push(1),
            (false, _) => {}
        }
        (since, was) = (now, is);
        // Takes what the board has said meanwhile.
        let _ = rig.board.until("the last words", Duration::ZERO, |_| false);
        if rig.board.transcript().contains("PANIC") {
            return groups;
        }
    }
    panic!("the boot argument fault=3 did nothing. The console:\n{}", rig.board.transcript());
}

#[test]
fn each_stage_is_announced_where_the_boot_arguments_ask_for_it() {
    // Between them the light is lit, as that of a starting board is: a group of one.
    let announced =
        |groups: &Vec<usize>| groups.iter().copied().filter(|&group| group > 1).take(2).eq([2, 3]);
    let tries: Vec<Vec<usize>> =
        (0..5).map(|_| groups_until_the_fault()).take_while(|groups| !announced(groups)).collect();
    assert!(tries.len() < 5, "{tries:?}");
}

/// Instructions of the entry code: at EL2, at EL1, and at EL1 with the MMU on. Each stands there once.
const AT_EL2: (&str, u32) = ("msr hcr_el2, x0", 0xd51c_1100);
pub const AT_EL1: (&str, u32) = ("msr cntkctl_el1, xzr", 0xd518_e11f);
pub const WITH_MMU: (&str, u32) = ("cmp w4, #1027", 0x7110_0c9f);

/// The image without such an instruction.
pub fn broken((what, instruction): (&str, u32)) -> Vec<u8> {
    let mut image = fs::read(kernel()).unwrap();
    let places: Vec<usize> =
        (0..0x1000).step_by(4).filter(|&at| image[at..at + 4] == instruction.to_le_bytes()).collect();
    let &[at] = &places[..] else { panic!("{what} stands in the entry code once: {places:x?}") };
    image[at..at + 4].fill(0); // no instruction
    image
}

#[test]
fn a_fault_before_there_are_words_for_it_is_a_flicker_for_ever() {
    for instruction in [AT_EL2, AT_EL1, WITH_MMU] {
        let what = instruction.0;
        let scratch = Scratch::new().unwrap();
        let (image, socket) = (scratch.path().join("broken.img"), scratch.path().join("monitor"));
        fs::write(&image, broken(instruction)).unwrap();
        let mut rig = Rig::boot_with(None, |mut machine| {
            machine.kernel = image;
            machine.with_monitor(&socket)
        });
        let mut changes = 0;
        let end = Instant::now() + SOON;
        let mut watch = Watch::new(&socket);
        let mut was = watch.lit();
        while changes < 8 {
            assert!(Instant::now() < end, "{what}: {changes} changes");
            std::thread::sleep(Duration::from_millis(8));
            let is = watch.lit();
            changes += u32::from(is != was);
            was = is;
        }
        assert!(rig.board.prompt(Duration::from_millis(100)).is_err());
    }
}
