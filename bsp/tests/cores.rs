//! How the other cores begin, against strict models of the stub's spin table and of a PSCI firmware: every test also proves that
//! nothing was done that silicon would not forgive; see `strict/cores`.
#![allow(unsafe_code)] // cores are started, if only in a model

#[path = "strict/board.rs"]
mod board;
#[path = "cores/mistakes.rs"]
mod mistakes;
#[path = "strict/cores/mod.rs"]
mod models;

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use board::refusal;
use embodios_bsp::board::{Begun, Release, qemu_virt, rpi4, rpi5};
use embodios_bsp::cpu::cores::Team;
use embodios_bsp::cpu::mmu::{Access, Tables};
use embodios_bsp::cpu::psci::{Psci, Refused};
use embodios_bsp::cpu::{self, cores, mmu};
use embodios_bsp::handoff::Handoff;
use embodios_bsp::machine::{self, Conduit, Machine};
use models::psci::{self, Firmware, Power};
use models::spin_table::SpinTable;
use models::{Image, Waiting};

/// Where an image lies on a board, and where in it cores begin.
const CODE: Range<u64> = 0x8_0000..0x18_0000;
const ENTRY: usize = 0x8_1230;
const EVERY_CORE: [(usize, u64); 3] = [(1, ENTRY as u64), (2, ENTRY as u64), (3, ENTRY as u64)];

#[repr(align(64))]
struct Parameters([AtomicU64; 8]);

/// What the entry code reads.
static PARAMETERS: Parameters = Parameters([const { AtomicU64::new(0) }; 8]);

fn image() -> Image {
    let parameters = PARAMETERS.0.as_ptr_range();
    Image { code: CODE, parameters: parameters.start as usize..parameters.end as usize }
}

/// A Raspberry Pi 4's map while its cores are parked: page 0 is there.
fn tables() -> &'static Tables<4> {
    let tables: &'static Tables<4> = Box::leak(Box::new(Tables::new()));
    tables.map(0..mmu::PAGE, Access::Data).unwrap();
    tables
}

fn stub(dead: &[usize]) -> Rc<SpinTable> {
    Rc::new(SpinTable::new(image(), tables(), dead))
}

/// What the firmware does, on a model.
fn start(release: Release) -> Begun {
    // SAFETY: it is a model of that board, and nobody begins at this address.
    unsafe { release.start(4, ENTRY, &PARAMETERS.0) }
}

fn by(method: &str) -> Release {
    Release::Firmware(Psci::named(method).unwrap())
}

/// A Raspberry Pi 4 without a word of its device tree.
fn pi4() -> Release {
    rpi4::BOARD.release(&Handoff::default(), None)
}

/// What a thread that plays a core sleeps on.
struct Sleeper;

impl Machine for Sleeper {
    fn wait_for_interrupt(&self) {
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Gathers a team of the cores that a model says have begun: threads play them.
fn gather(begun: impl Fn() -> models::Begun) -> (&'static Team, [bool; 4]) {
    let team: &'static Team = Box::leak(Box::new(Team::new()));
    let running = Cell::new(0);
    let here = team.gather(4, Duration::from_secs(1), || {
        cpu::send_event();
        let begun = begun();
        for &(core, _) in &begun[running.replace(begun.len())..] {
            thread::spawn(move || {
                let _placed = machine::put(Rc::new(Sleeper));
                team.work(core)
            });
        }
        thread::sleep(Duration::from_millis(1)); // core 0's clock runs by looks, not while the others get going
    });
    (team, here)
}

/// How many cores do their part of a job.
fn workers(team: &Team) -> u64 {
    let count = AtomicU64::new(0);
    team.run(&|_| _ = count.fetch_add(1, Ordering::Relaxed));
    count.into_inner()
}

#[test]
fn cores_parked_in_the_stub_all_come_and_work() {
    let model = stub(&[]);
    let _placed = machine::put(model.clone());
    assert_eq!(start(pi4()), Begun { cores: 4, refused: [None; 4] });
    assert_eq!(model.begun(), EVERY_CORE);
    let (team, here) = gather(|| model.begun());
    assert_eq!((here, workers(team)), ([true; 4], 4));
}

#[test]
fn a_parked_core_that_does_not_wake_up_is_told_and_those_before_it_work() {
    for (dead, here, width) in [(3, [true, true, true, false], 3), (1, [true, false, true, true], 1)] {
        let model = stub(&[dead]);
        let _placed = machine::put(model.clone());
        start(pi4());
        let (team, come) = gather(|| model.begun());
        assert_eq!((come, workers(team)), (here, width));
    }
}

#[test]
fn cores_that_a_boot_loader_left_in_our_entry_code_are_nudged() {
    let model = Rc::new(Waiting::new(image()));
    let _placed = machine::put(model.clone());
    start(rpi5::BOARD.release(&Handoff::default(), None));
    let (team, here) = gather(|| model.begun());
    assert_eq!((here, workers(team)), ([true; 4], 4));
}

#[test]
fn a_firmware_starts_cores_by_the_affinity_of_their_kind_and_by_its_own_instruction() {
    for (method, conduit) in [("smc", Conduit::Smc), ("hvc", Conduit::Hvc)] {
        for firmware in
            [Firmware::new(conduit, image(), 4), Firmware::new(conduit, image(), 4).on_a72()].map(Rc::new)
        {
            let _placed = machine::put(firmware.clone());
            assert_eq!(start(by(method)), Begun { cores: 4, refused: [None; 4] });
            assert_eq!(firmware.begun(), EVERY_CORE);
            assert_eq!(firmware.contexts(), [0; 3], "as the stub does");
            let (team, here) = gather(|| firmware.begun());
            assert_eq!((here, workers(team)), ([true; 4], 4));
        }
    }
}

#[test]
fn a_machine_with_fewer_cores_is_known_by_the_first_that_is_not_there() {
    for cores in 1..=4 {
        let firmware = Rc::new(Firmware::new(Conduit::Hvc, image(), cores));
        let _placed = machine::put(firmware.clone());
        assert_eq!(start(by("hvc")), Begun { cores, refused: [None; 4] });
        assert_eq!(firmware.begun(), EVERY_CORE[..cores - 1]);
    }
}

#[test]
fn a_core_that_the_firmware_does_not_start_is_told_with_its_reason_and_the_rest_goes_on() {
    for code in [psci::DENIED, psci::INTERNAL_FAILURE, psci::ON_PENDING, psci::ALREADY_ON] {
        let firmware = Rc::new(Firmware::new(Conduit::Smc, image(), 4).answering(2, code));
        let _placed = machine::put(firmware.clone());
        let begun = start(by("smc"));
        assert_eq!(begun, Begun { cores: 4, refused: [None, None, Some(Refused::Because(code)), None] });
        assert_eq!(firmware.begun(), [EVERY_CORE[0], EVERY_CORE[2]]);
        // Started once more, those that run are on already.
        let again = Some(Refused::Because(psci::ALREADY_ON));
        assert_eq!(start(by("smc")).refused, [None, again, Some(Refused::Because(code)), again]);
    }
}

#[test]
fn no_call_reaches_a_machine_without_a_firmware_below_us_whatever_the_tree_says() {
    // A firmware by the truth, and every hand-over, level and board: a wrong call is undefined, and the model says so.
    let methods = ["", "smc", "hvc"];
    for (board, level, method, cores_by_psci) in [&rpi4::BOARD, &rpi5::BOARD, &qemu_virt::BOARD]
        .into_iter()
        .flat_map(|board| (1..=3).map(move |level| (board, level)))
        .flat_map(|(board, level)| methods.map(|method| (board, level, method)))
        .flat_map(|(board, level, method)| [false, true].map(|by| (board, level, method, by)))
    {
        let handoff = Handoff { psci: Psci::named(method), cores_by_psci, ..Handoff::default() };
        let release = board.release(&handoff, board.firmware(&handoff, level));
        let smc = method == "smc" && cores_by_psci; // TF-A in the stub's place writes the tree
        let model: Rc<dyn Machine> = match (board.name, level) {
            ("Raspberry Pi 4", 1 | 2) if smc => Rc::new(Firmware::new(Conduit::Smc, image(), 4).on_a72()),
            ("Raspberry Pi 4", 1) if method == "hvc" && cores_by_psci => {
                Rc::new(Firmware::new(Conduit::Hvc, image(), 4).on_a72()) // a hypervisor's guest
            }
            ("Raspberry Pi 4", _) => stub(&[]),
            ("Raspberry Pi 5", 1 | 2) if method != "hvc" => Rc::new(Firmware::new(Conduit::Smc, image(), 4)),
            (_, 1) if method == "hvc" => Rc::new(Firmware::new(Conduit::Hvc, image(), 4)),
            (_, 1 | 2) if method == "smc" => Rc::new(Firmware::new(Conduit::Smc, image(), 4)),
            _ => Rc::new(Waiting::new(image())),
        };
        let _placed = machine::put(model);
        let begun = start(release);
        assert_eq!(begun, Begun { cores: 4, refused: [None; 4] }, "{} EL{level} {method}", board.name);
    }
}

#[test]
fn restart_and_power_off_are_what_they_say() {
    for (call, power) in [(Psci::reset as fn(Psci), Power::Restarted), (Psci::power_off, Power::Off)] {
        let firmware = Rc::new(Firmware::new(Conduit::Smc, image(), 4));
        let _placed = machine::put(firmware.clone());
        call(Psci::MONITOR);
        assert_eq!(firmware.power(), power);
    }
}

#[test]
fn the_words_are_stored_only_while_page_0_is_there_to_be_written() {
    let release = |tables| {
        let _placed = machine::put(Rc::new(SpinTable::new(image(), tables, &[])));
        mmu::clean(&PARAMETERS.0);
        // SAFETY: the word is a model's.
        unsafe { cores::release(0xe0, ENTRY) };
    };
    let map = tables();
    release(map);
    map.forbid(0..mmu::PAGE).unwrap();
    assert!(refusal(|| release(map)).contains("where nothing is mapped"));
    for access in [Access::Constants, Access::Code, Access::Uncached, Access::Device] {
        let map = tables();
        map.map(0..mmu::PAGE, access).unwrap();
        assert!(refusal(|| release(map)).contains("not mapped as memory to write to"), "{access:?}");
    }
    let map = tables();
    map.map_onto(0..mmu::PAGE, 0x20_0000, Access::Data).unwrap();
    assert!(refusal(|| release(map)).contains("mapped to other memory"));
}
