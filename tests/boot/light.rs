//! The activity light, as the emulated pin shows it.

use super::*;
use embodi::qemu::monitor;
use std::time::Instant;

/// Level of pins 32 to 53 (GPLEV1), as QEMU's monitor reads physical memory; the light is pin 42.
fn lit(socket: &Path) -> bool {
    let answer = monitor::ask(socket, "xp /1wx 0xfe200038").unwrap_or_else(|error| panic!("{error:#}"));
    let word = answer.split_once("0x").map(|(_, word)| word.trim()).unwrap_or_default();
    let word = u32::from_str_radix(word, 16).unwrap_or_else(|_| panic!("no register: {answer:?}"));
    word >> 10 & 1 == 1
}

/// Watches the light until it has been dark for longer than in any pattern's gap three times, and gives how long it was
/// lit in each of the two rounds between. A busy PC may make us miss a flash: so a round counts when two agree.
fn rounds(socket: &Path) -> Vec<Duration> {
    let gap = Duration::from_millis(600);
    let end = Instant::now() + SOON;
    let mut seen: Vec<Vec<Duration>> = vec![vec![]];
    let (mut since, mut was) = (Instant::now(), lit(socket));
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(8));
        let is = lit(socket);
        if is == was {
            continue;
        }
        let took = since.elapsed();
        (since, was) = (Instant::now(), is);
        if is && took > gap {
            // The first one may have begun before we looked.
            if let [.., before, last] = &seen[1..]
                && before.len() == last.len()
            {
                return last.clone();
            }
            seen.push(vec![]);
        } else if !is && let Some(round) = seen.last_mut() {
            round.push(took);
        }
    }
    panic!("no pattern was seen twice in a row: {seen:?}");
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
        assert_eq!(rounds(&socket).len(), flashes, "{}", rig.board.transcript());
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
        let flashes = rounds(&socket);
        assert_eq!(flashes.len(), 1 + stage, "{flashes:?}");
        let (long, short) = flashes.split_first().unwrap();
        assert!(short.iter().all(|short| long > short), "{flashes:?}");
    }
}

#[test]
fn each_stage_is_announced_where_the_boot_arguments_ask_for_it() {
    let (mut rig, _scratch, socket) = watched(None, "light=stages onfault=stop fault=3");
    // What is seen of each group depends on when we begin to look: the last whole one before the fall is enough.
    let mut groups = vec![0];
    let (mut since, mut was) = (Instant::now(), lit(&socket));
    let end = Instant::now() + SOON;
    while !rig.board.transcript().contains("switch the board off") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(8));
        let _ = rig.board.until("nothing", Duration::ZERO, |_| false); // takes what the board has said
        let is = lit(&socket);
        if is != was {
            match is {
                true if since.elapsed() > Duration::from_millis(600) => groups.push(1),
                true => *groups.last_mut().unwrap() += 1,
                false => {}
            }
            (since, was) = (Instant::now(), is);
        }
    }
    // Each group is followed by the light that a starting board shows, which is one more after a pause.
    assert!(groups.contains(&2) && groups.contains(&3), "{groups:?}");
    rig.expect("switch the board off");
}

#[test]
fn a_fault_before_there_are_words_for_it_is_a_flicker_for_ever() {
    // Instructions of the entry code: at EL2, at EL1, and at EL1 with the MMU on.
    for (what, instruction) in [
        ("msr hcr_el2, x0", 0xd51c_1100_u32),
        ("msr cntkctl_el1, xzr", 0xd518_e11f),
        ("cmp w4, #1027", 0x7110_0c9f),
    ] {
        let mut image = fs::read(kernel()).unwrap();
        let places: Vec<usize> =
            (0..0x1000).step_by(4).filter(|&at| image[at..at + 4] == instruction.to_le_bytes()).collect();
        let &[at] = &places[..] else { panic!("{what} stands in the entry code once: {places:x?}") };
        image[at..at + 4].fill(0); // no instruction
        let scratch = Scratch::new().unwrap();
        let (broken, socket) = (scratch.path().join("broken.img"), scratch.path().join("monitor"));
        fs::write(&broken, image).unwrap();
        let mut rig = Rig::boot_with(None, |mut machine| {
            machine.kernel = broken;
            machine.with_monitor(&socket)
        });
        let mut changes = 0;
        let end = Instant::now() + SOON;
        let mut was = lit(&socket);
        while changes < 8 {
            assert!(Instant::now() < end, "{what}: {changes} changes");
            std::thread::sleep(Duration::from_millis(8));
            let is = lit(&socket);
            changes += u32::from(is != was);
            was = is;
        }
        assert!(rig.board.prompt(Duration::from_millis(100)).is_err());
    }
}
