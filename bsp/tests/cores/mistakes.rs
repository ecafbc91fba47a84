//! Each kind of mistake in starting a core, and what the models say to it.

use embodios_bsp::machine::{Conduit, Machine};

use super::board::refusal;
use super::models::Waiting;
use super::models::psci::{self, Firmware};
use super::models::spin_table::SpinTable;
use super::{ENTRY, image, stub};

/// Cleans what the entry code reads, as it has to be before any core begins.
fn parameters(machine: &dyn Machine) {
    for line in image().parameters.step_by(64) {
        machine.clean(line);
    }
    machine.barrier();
}

/// The word of core 1 stored, cleaned and told of.
fn release_core_1(table: &SpinTable) {
    table.store(0xe0, 8, ENTRY as u64);
    table.clean(0xc0);
    table.barrier();
    table.send_event();
}

/// A mistake, and what the model says to it.
type Mistake<T> = (fn(&T), &'static str);

const MISTAKES_AT_THE_TABLE: &[Mistake<SpinTable>] = &[
    (|t| _ = t.store(0xe0, 4, ENTRY as u64), "loads 64 bits, 4 bytes were stored"),
    (|t| _ = t.store(0xd8, 8, ENTRY as u64), "0xd8 is no parked core's word"),
    (|t| _ = t.store(0xf8, 8, ENTRY as u64), "0xf8 is no parked core's word"),
    (|t| _ = t.store(0xe4, 8, ENTRY as u64), "0xe4 is no parked core's word"),
    (|t| _ = t.store(0xe0, 8, 0xffff_0000_0008_1230), "where there is no code of ours in memory"),
    (|t| _ = t.store(0xe0, 8, 0), "where there is no code of ours in memory"),
    (|t| _ = t.store(0xe0, 8, 0x8_1232), "no instruction does"),
    (
        |t| {
            t.store(0xe0, 8, ENTRY as u64);
            t.barrier();
            t.send_event();
        },
        "while the word that it tells of is in a cache",
    ),
    (
        |t| {
            t.store(0xe0, 8, ENTRY as u64);
            t.clean(0xc0);
            t.send_event();
        },
        "overtakes the cleaning",
    ),
    (
        |t| {
            t.store(0xe0, 8, ENTRY as u64);
            t.clean(0x100);
            t.barrier();
            t.send_event();
        },
        "while the word that it tells of is in a cache",
    ),
    (|t| t.clean(0xe0), "the line that is cleaned begins at 0xe0"),
    (
        |t| {
            release_core_1(t);
            t.store(0xe0, 8, ENTRY as u64);
        },
        "core 1 has left the table",
    ),
    (|t| _ = t.call(Conduit::Smc, [0xc400_0003, 1, ENTRY as u64, 0]), "Smc is undefined here"),
    (|t| _ = t.call(Conduit::Hvc, [0xc400_0003, 1, ENTRY as u64, 0]), "Hvc is undefined here"),
];

const MISTAKES_AT_THE_FIRMWARE: &[Mistake<Firmware>] = &[
    (|f| _ = f.call(Conduit::Hvc, [0xc400_0003, 0x100, ENTRY as u64, 0]), "is not called by Hvc"),
    (|f| _ = f.call(Conduit::Smc, [0x8400_0003, 0x100, ENTRY as u64, 0]), "cuts an entry of 64"),
    (|f| _ = f.call(Conduit::Smc, [0x8400_0000, 0, 0, 0]), "no function that every firmware has"),
    (|f| _ = f.call(Conduit::Smc, [0xc400_0003, 0x8100_0100, ENTRY as u64, 0]), "bits that are no affinity"),
    (|f| _ = f.call(Conduit::Smc, [0xc400_0003, 0x100, 0xffff_0000_0008_1230, 0]), "no code of ours"),
    (|f| _ = f.call(Conduit::Smc, [0xc400_0003, 0x100, 0x8_1231, 0]), "no instruction does"),
    (
        |f| {
            f.clean(image().parameters.start);
            f.call(Conduit::Smc, [0xc400_0003, 0x100, ENTRY as u64, 0]);
        },
        "CPU_ON overtakes the cleaning",
    ),
    (
        |f| {
            f.call(Conduit::Smc, [0x8400_0008, 0, 0, 0]);
            f.call(Conduit::Smc, [0xc400_0003, 0x100, ENTRY as u64, 0]);
        },
        "no longer on",
    ),
];

#[test]
fn every_mistake_is_refused_with_its_reason() {
    for (index, (mistake, words)) in MISTAKES_AT_THE_TABLE.iter().enumerate() {
        let table = stub(&[]);
        parameters(&*table);
        let said = refusal(|| mistake(&table));
        assert!(said.contains(words), "mistake {index} at the table: {words:?}, but {said:?}");
    }
    for (index, (mistake, words)) in MISTAKES_AT_THE_FIRMWARE.iter().enumerate() {
        let firmware = Firmware::new(Conduit::Smc, image(), 4);
        parameters(&firmware);
        let said = refusal(|| mistake(&firmware));
        assert!(said.contains(words), "mistake {index} at the firmware: {words:?}, but {said:?}");
    }
    // A core counted in the wrong level of affinity is not there.
    let firmware = Firmware::new(Conduit::Smc, image(), 4);
    assert_eq!(
        firmware.call(Conduit::Smc, [0xc400_0003, 1, ENTRY as u64, 0]) as i32,
        psci::INVALID_PARAMETERS
    );
}

#[test]
fn no_core_begins_before_what_its_entry_code_reads_is_in_memory() {
    let words = "before the entry code's parameters";
    let said = refusal(|| release_core_1(&stub(&[])));
    assert!(said.contains(words), "{said:?}");
    let firmware = Firmware::new(Conduit::Smc, image(), 4);
    let said = refusal(|| _ = firmware.call(Conduit::Smc, [0xc400_0003, 0x100, ENTRY as u64, 0]));
    assert!(said.contains(words), "{said:?}");
    let said = refusal(|| Waiting::new(image()).send_event());
    assert!(said.contains(words), "{said:?}");
}
