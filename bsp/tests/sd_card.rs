//! The SD host driver and the card protocol against a strict model of both ends: every test also
//! proves that nothing was done that silicon would not forgive; see `strict`.

mod strict;

use embodios_bsp::drivers::sd_card::{Capacity, CardError, HostError, SdCard, Stage, Timing, Width};
use embodios_bsp::drivers::sdhci::{AlwaysOn, Bus, CardPower, Register, Sdhci, Unsupported, Way};
use strict::{CardKind, DDR50, LowVoltage, Model, Reach, SDR50, SDR104, Switches, TUNE_SDR50, content};

type Card = SdCard<Sdhci<Model>>;

fn identify(model: &Model) -> Result<Card, CardError> {
    SdCard::identify(Sdhci::new(model.clone(), Some(100_000_000)), &mut Switches(model.clone()))
}

fn ready(kind: CardKind) -> (Model, Card) {
    let model = Model::new(kind);
    let card = identify(&model).unwrap();
    model.take_seen();
    (model, card)
}

fn expected(first: u64, count: u64) -> Vec<u8> {
    (first..first + count).flat_map(content).collect()
}

fn read(card: &mut Card, first: u64, count: u64) -> Result<Vec<u8>, CardError> {
    let mut buffer = vec![0xee; count as usize * 512];
    card.read(first, &mut buffer).map(|()| buffer)
}

/// The data commands among those the card saw.
fn transfers(model: &Model) -> Vec<(u8, u32, u32)> {
    model.take_seen().into_iter().filter(|(index, ..)| matches!(index, 17 | 18)).collect()
}

#[test]
fn a_high_capacity_card_is_found_at_four_lines_and_50_mhz_and_addressed_by_block() {
    let (model, mut card) = ready(CardKind::sdhc());
    assert_eq!((card.capacity(), card.blocks()), (Capacity::High, 8 * 1024 * 1024));
    assert_eq!((card.clock_hz(), card.width()), (50_000_000, Width::Four));
    assert_eq!(model.clock_hz(), 50_000_000);
    assert_eq!(read(&mut card, 5_000_000, 1), Ok(expected(5_000_000, 1)));
    assert_eq!(read(&mut card, 1, 40), Ok(expected(1, 40)));
    assert_eq!(transfers(&model), [(17, 5_000_000, 1), (18, 1, 40)]);
    assert_eq!(card.retries(), 0);
}

#[test]
fn a_standard_capacity_card_is_addressed_by_byte() {
    let (model, mut card) = ready(CardKind::sdsc());
    assert_eq!((card.capacity(), card.blocks()), (Capacity::Standard, 131_072));
    assert_eq!(read(&mut card, 131_071, 1), Ok(expected(131_071, 1)));
    assert_eq!(read(&mut card, 3, 8), Ok(expected(3, 8)));
    assert_eq!(transfers(&model), [(17, 131_071 * 512, 1), (18, 3 * 512, 8)]);
}

#[test]
fn an_old_card_that_does_not_know_cmd8_works_at_25_mhz() {
    let (model, mut card) = ready(CardKind::version1());
    assert_eq!((card.capacity(), card.clock_hz()), (Capacity::Standard, 25_000_000));
    assert_eq!(read(&mut card, 0, 3), Ok(expected(0, 3)));
    assert_eq!(transfers(&model), [(18, 0, 3)]);
}

#[test]
fn an_empty_socket_is_reported_within_a_quarter_of_a_second() {
    let model = Model::new(CardKind::none());
    assert_eq!(identify(&model).err(), Some(CardError::NoCard));
    println!("{} ms", model.millis());
    assert!(model.millis() < 250, "{} ms", model.millis());
    assert!(CardError::NoCard.to_string().contains("insert one"));
    // And a card that comes later is found.
    model.insert(CardKind::sdhc());
    assert_eq!(read(&mut identify(&model).unwrap(), 7, 2), Ok(expected(7, 2)));
}

#[test]
fn a_card_that_takes_its_time_is_waited_for_but_not_for_ever() {
    let model = Model::new(CardKind { busy_ms: 950, ..CardKind::sdhc() });
    assert!(identify(&model).is_ok());
    let model = Model::new(CardKind { busy_ms: 5_000, ..CardKind::sdhc() });
    assert_eq!(identify(&model).err(), Some(CardError::NotReady));
    assert!(model.millis() < 1_200, "{} ms", model.millis());
}

#[test]
fn a_card_left_at_1v8_comes_back_when_its_supply_is_cut() {
    let kind = CardKind { stuck_at_1v8: true, ..CardKind::sdhc() };
    let (model, _) = ready(kind.clone());
    assert!(matches!(model.supplies()[..], [(false, off), (true, on)] if on - off >= 10));
    // Without a switch there is nothing to be done, and that is said.
    let model = Model::new(kind);
    let card = SdCard::identify(Sdhci::new(model.clone(), Some(100_000_000)), &mut AlwaysOn);
    assert_eq!(card.err(), Some(CardError::NoCard));
}

/// A bus on which whoever drives the controller falls at a write to come.
struct Falls {
    model: Model,
    left: u32,
}

impl Bus for Falls {
    fn read(&mut self, register: Register) -> u32 {
        self.model.read(register)
    }
    fn write(&mut self, register: Register, value: u32) {
        let Some(left) = self.left.checked_sub(1) else { std::panic::resume_unwind(Box::new(())) };
        self.left = left;
        self.model.write(register, value);
    }
    fn micros(&mut self) -> u64 {
        self.model.micros()
    }
    fn reach(&mut self, range: std::ops::Range<usize>) -> Option<u64> {
        self.model.reach(range)
    }
    fn settle(&mut self, range: std::ops::Range<usize>) {
        self.model.settle(range);
    }
}

#[test]
fn a_card_is_given_back_as_a_board_that_is_switched_on_finds_it_wherever_its_driver_fell() {
    let mut fallen = 0;
    for left in (0..).step_by(5) {
        let model = Model::new(CardKind::uhs()).with_uhs(DDR50).with_reach(Reach::Low);
        let (bus, mut switches) = (Falls { model: model.clone(), left }, Switches(model.clone()));
        let start_and_read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let mut card = SdCard::identify(Sdhci::new(bus, Some(100_000_000)), &mut switches).unwrap();
            assert_eq!(card.timing(), Timing::Ddr50);
            card.read(9, &mut [0; 1024]).unwrap();
        }));
        model.work(20_000); // the fault's words
        assert!(start_and_read.is_err() || !model.is_as_new(), "it has used the card");
        Sdhci::new(model.clone(), None).give_back(&mut Switches(model.clone()));
        assert!(model.is_as_new(), "after {left} writes");
        assert!(matches!(model.supplies()[..], [.., (false, off), (true, on)] if on - off >= 10));
        // A boot loader without a switch for the supply finds it.
        let host = Sdhci::new(model.clone(), Some(100_000_000));
        assert!(SdCard::identify(host, &mut LevelOnly(Switches(model))).is_ok(), "after {left} writes");
        if start_and_read.is_ok() {
            break;
        }
        fallen += 1;
    }
    assert!(fallen > 20, "{fallen} falls");
}

/// A boot loader's switches: it sets the level and leaves the supply alone.
struct LevelOnly(Switches);

impl CardPower for LevelOnly {
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        self.0.signal_3v3()
    }
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        self.0.signal_1v8()
    }
    fn supply(&mut self, _on: bool) -> Result<(), Unsupported> {
        Err(Unsupported)
    }
}

/// A card that works at 1.8 V.
fn at_1v8() -> Model {
    let model = Model::new(CardKind::uhs()).with_uhs(DDR50);
    assert_eq!(identify(&model).unwrap().timing(), Timing::Ddr50);
    model.work(20_000);
    model
}

#[test]
fn a_card_left_at_1v8_is_silent_to_a_boot_loader_that_does_not_cut_its_supply() {
    let model = at_1v8();
    let host = Sdhci::new(model.clone(), Some(100_000_000));
    assert_eq!(SdCard::identify(host, &mut LevelOnly(Switches(model))).err(), Some(CardError::NoCard));
}

#[test]
fn a_card_is_given_back_though_its_controller_does_not_get_out_of_reset() {
    let model = at_1v8();
    model.faults(|faults| faults.stuck_reset = true);
    let before = model.millis();
    Sdhci::new(model.clone(), None).give_back(&mut Switches(model.clone()));
    assert!(model.is_as_new() && model.millis() - before < 1_100, "{} ms", model.millis() - before);
}

#[test]
fn boards_that_cannot_switch_power_and_clocks_of_any_speed_do() {
    for base in [50_000_000, 52_000_000, 100_000_000, 200_000_000, 250_000_000] {
        for given in [Some(base as u32), None, Some(0)] {
            let model = Model::new(CardKind::sdhc());
            model.set_base(base);
            let mut card = SdCard::identify(Sdhci::new(model.clone(), given), &mut AlwaysOn).unwrap();
            assert!((26_000_000..=50_000_000).contains(&card.clock_hz()), "{} Hz", card.clock_hz());
            assert_eq!(u64::from(card.clock_hz()), model.clock_hz());
            assert_eq!(read(&mut card, 9, 9), Ok(expected(9, 9)));
        }
    }
    for base_hz in [100_000, 1_000_000_000] {
        let card = SdCard::identify(Sdhci::new(Model::new(CardKind::sdhc()), Some(base_hz)), &mut AlwaysOn);
        let error = HostError::ClockRange { base_hz, wanted_hz: 400_000 };
        assert_eq!(card.err(), Some(CardError::Start(error)));
    }
}

#[test]
fn a_read_longer_than_the_controller_can_count_is_split_and_loses_no_block() {
    let (model, mut card) = ready(CardKind::sdhc());
    assert!(read(&mut card, 100, 70_000) == Ok(expected(100, 70_000)));
    assert_eq!(transfers(&model), [(18, 100, 65_535), (18, 65_635, 4_465)]);
    assert!(read(&mut card, 0, 65_536) == Ok(expected(0, 65_536)));
    assert_eq!(transfers(&model), [(18, 0, 65_535), (17, 65_535, 1)]);
}

#[test]
fn a_read_beyond_the_end_or_of_half_a_block_is_refused_without_asking_the_card() {
    let (model, mut card) = ready(CardKind::sdsc());
    for (first, count) in [(131_072, 1), (131_071, 2), (u64::MAX, 1), (1 << 40, 1)] {
        let blocks = 131_072;
        let sector = first.max(blocks);
        assert_eq!(read(&mut card, first, count), Err(CardError::BeyondEnd { sector, blocks }));
    }
    assert_eq!(card.read(0, &mut [0; 700]), Err(CardError::NotWholeBlocks { bytes: 700 }));
    assert_eq!(card.read(5, &mut []), Ok(()));
    assert_eq!(transfers(&model), []);
}

#[test]
fn a_garbled_block_is_read_again_from_where_it_failed() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.crc.insert(1_500, 1));
    assert_eq!(read(&mut card, 1_000, 1_000), Ok(expected(1_000, 1_000)));
    let seen = transfers(&model);
    assert_eq!(seen.len(), 2);
    let (_, again, count) = seen[1];
    assert!((1_490..=1_500).contains(&again) && again + count == 2_000, "{seen:?}");
    assert_eq!((card.retries(), card.clock_hz()), (1, 50_000_000));
    // A single block too.
    model.faults(|faults| faults.crc.insert(42, 1));
    assert_eq!(read(&mut card, 42, 1), Ok(expected(42, 1)));
}

#[test]
fn a_block_that_stays_garbled_slows_the_clock_and_is_then_reported_by_its_number() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.crc.insert(77, 3));
    assert_eq!(read(&mut card, 70, 20), Ok(expected(70, 20)));
    assert_eq!(card.clock_hz(), 12_500_000);
    model.faults(|faults| faults.crc.insert(77, u32::MAX));
    let cause = HostError::DataGarbled { command: 18 };
    assert_eq!(read(&mut card, 70, 20), Err(CardError::Read { sector: 77, cause }));
    assert!(card.clock_hz() >= 6_000_000);
    // The card goes on working.
    assert_eq!(read(&mut card, 78, 20), Ok(expected(78, 20)));
}

#[test]
fn a_card_that_garbles_now_and_then_is_read_to_the_end() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.crc.extend((0..20).map(|i| (i * 50 + 7, 1))));
    assert_eq!(read(&mut card, 0, 1_000), Ok(expected(0, 1_000)));
    assert_eq!(card.retries(), 20);
}

#[test]
fn a_block_that_does_not_come_is_asked_for_again() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.silence.insert(500, 1));
    assert_eq!(read(&mut card, 400, 200), Ok(expected(400, 200)));
    model.faults(|faults| faults.silence.insert(500, u32::MAX));
    let cause = HostError::NoData { command: 18 };
    assert_eq!(read(&mut card, 400, 200), Err(CardError::Read { sector: 500, cause }));
}

#[test]
fn a_card_pulled_in_the_middle_of_a_read_is_missed_within_a_second() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.pull_at = Some(3_000));
    let before = model.millis();
    let Err(CardError::Removed { sector }) = read(&mut card, 2_000, 2_000) else { panic!("not missed") };
    assert!((2_990..=3_000).contains(&sector), "{sector}");
    assert!(model.millis() - before < 1_000);
    assert!(matches!(read(&mut card, 0, 1), Err(CardError::Removed { sector: 0 })));
    // Another card in the same socket is a new one.
    model.faults(|faults| faults.pull_at = None);
    model.insert(CardKind::sdsc());
    assert_eq!(read(&mut identify(&model).unwrap(), 7, 2), Ok(expected(7, 2)));
}

#[test]
fn a_controller_that_never_announces_data_ends_in_an_error_and_not_in_a_hang() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.deaf = true);
    let before = model.millis();
    let cause = HostError::Stuck { command: 18, stage: Stage::Data };
    assert_eq!(read(&mut card, 9, 2), Err(CardError::Read { sector: 9, cause }));
    assert!(model.millis() - before < 5_000, "{} ms", model.millis() - before);
    model.faults(|faults| faults.deaf = false);
    assert_eq!(read(&mut card, 9, 2), Ok(expected(9, 2)));
}

#[test]
fn a_sector_the_card_gives_up_on_is_reported_with_the_cards_own_words() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| faults.unreadable.push(88));
    let Err(CardError::Unreadable { sector: 88, status }) = read(&mut card, 88, 2) else { panic!() };
    assert_eq!(status >> 21 & 1, 1);
    assert_eq!(read(&mut card, 90, 2), Ok(expected(90, 2)));
}

#[test]
fn a_configuration_register_that_times_out_costs_high_speed_at_most() {
    for (failures, hz) in [(1, 50_000_000), (2, 50_000_000), (3, 25_000_000)] {
        let (_, mut card) = ready(CardKind { scr_failures: failures, ..CardKind::sdhc() });
        assert_eq!((card.clock_hz(), card.width()), (hz, Width::Four));
        assert_eq!(read(&mut card, 1, 5), Ok(expected(1, 5)));
    }
}

#[test]
fn a_card_that_garbles_at_50_mhz_is_read_at_25() {
    let (_, mut card) = ready(CardKind { poor_at_50: true, ..CardKind::sdhc() });
    assert_eq!(card.clock_hz(), 25_000_000);
    assert_eq!(read(&mut card, 1, 500), Ok(expected(1, 500)));
    assert_eq!(card.retries(), 0);
    let (_, card) = ready(CardKind { high_speed: false, ..CardKind::sdhc() });
    assert_eq!(card.clock_hz(), 25_000_000);
}

#[test]
fn a_locked_card_is_told_from_a_broken_one() {
    let model = Model::new(CardKind { locked: true, ..CardKind::sdhc() });
    assert_eq!(identify(&model).err(), Some(CardError::Locked));
}

#[test]
fn a_broken_controller_is_reported_in_bounded_time() {
    let model = Model::new(CardKind::sdhc());
    model.faults(|faults| faults.stuck_clock = true);
    assert_eq!(identify(&model).err(), Some(CardError::Start(HostError::ClockStuck)));
    assert!(model.millis() < 2_000);
    let model = Model::new(CardKind::sdhc());
    model.faults(|faults| faults.stuck_reset = true);
    assert_eq!(identify(&model).err(), Some(CardError::Start(HostError::NoReset)));
    assert!(model.millis() < 4_000);
}

#[test]
fn recovery_survives_a_garbled_answer_of_its_own() {
    let (model, mut card) = ready(CardKind::sdhc());
    model.faults(|faults| {
        faults.crc.insert(10, 1);
        faults.garbled_answers = 2;
    });
    assert_eq!(read(&mut card, 0, 50), Ok(expected(0, 50)));
}

#[test]
fn reading_at_50_mhz_keeps_the_card_busy() {
    let (model, mut card) = ready(CardKind::sdhc());
    let before = model.millis();
    read(&mut card, 0, 20_000).unwrap();
    let rate = 20_000 * 512 / (model.millis() - before); // bytes a millisecond
    println!("{rate} bytes/ms with {} ns an access", 100);
    assert!(rate > 15_000, "{rate} bytes/ms");
}

/// Reads into memory that begins so many bytes behind a cache line's first.
fn read_at(card: &mut Card, shift: usize, first: u64, count: u64) -> Result<Vec<u8>, CardError> {
    let bytes = count as usize * 512;
    let mut room = vec![0xee; bytes + 128];
    let start = room.as_ptr().align_offset(64) + shift;
    let buffer = &mut room[start..start + bytes];
    card.read(first, buffer).map(|()| buffer.to_vec())
}

fn read_lines(card: &mut Card, first: u64, count: u64) -> Result<Vec<u8>, CardError> {
    read_at(card, 0, first, count)
}

fn direct(reach: Reach) -> (Model, Card) {
    let model = Model::new(CardKind::sdhc()).with_reach(reach);
    let card = identify(&model).unwrap();
    model.take_seen();
    model.take_direct();
    (model, card)
}

#[test]
fn whole_cache_lines_are_put_in_memory_by_the_controller() {
    for (reach, way) in [(Reach::Low, Way::Adma2 { bits: 32 }), (Reach::High, Way::Adma2 { bits: 64 })] {
        let (model, mut card) = direct(reach);
        for (first, count) in [(9, 1), (77, 2), (5_000, 63), (5_000, 64), (5_000, 65), (6_000, 640)] {
            assert!(
                read_lines(&mut card, first, count) == Ok(expected(first, count)),
                "{reach:?} {first} {count}"
            );
            assert_eq!((model.take_direct(), card.host().way()), (1, way));
        }
        // More than a table describes takes two.
        assert!(read_lines(&mut card, 100, 10_000) == Ok(expected(100, 10_000)));
        assert_eq!(model.take_direct(), 2);
        assert_eq!(card.retries(), 0);
    }
}

#[test]
fn what_lies_across_cache_lines_or_out_of_reach_is_read_word_by_word() {
    let (model, mut card) = direct(Reach::Low);
    assert!(read_at(&mut card, 32, 30, 2) == Ok(expected(30, 2)));
    assert_eq!((model.take_direct(), card.host().way()), (0, Way::Programmed));
    for reach in [Reach::None, Reach::TooHigh] {
        let (model, mut card) = direct(reach);
        assert!(read_lines(&mut card, 3, 40) == Ok(expected(3, 40)));
        assert_eq!(model.take_direct(), 0);
    }
}

#[test]
fn a_controller_that_does_not_find_memory_is_not_asked_to_again() {
    let (model, mut card) = direct(Reach::Low);
    model.faults(|faults| faults.adma = 1);
    assert!(read_lines(&mut card, 40, 100) == Ok(expected(40, 100)));
    assert_eq!((model.take_direct(), card.retries()), (1, 1));
    assert!(read_lines(&mut card, 40, 100) == Ok(expected(40, 100)));
    assert_eq!((model.take_direct(), card.host().way()), (0, Way::Programmed));
}

#[test]
fn a_garbled_direct_transfer_is_taken_up_word_by_word_and_the_next_is_direct_again() {
    let (model, mut card) = direct(Reach::High);
    model.faults(|faults| faults.crc.insert(1_050, 2));
    assert!(read_lines(&mut card, 1_000, 100) == Ok(expected(1_000, 100)));
    assert_eq!(card.retries(), 2);
    model.take_direct();
    assert!(read_lines(&mut card, 2_000, 10) == Ok(expected(2_000, 10)));
    assert_eq!(model.take_direct(), 1);
    model.faults(|faults| faults.silence.insert(3_004, 1));
    assert!(read_lines(&mut card, 3_000, 10) == Ok(expected(3_000, 10)));
}

#[test]
fn a_card_pulled_during_a_direct_transfer_is_reported_and_found_again() {
    let (model, mut card) = direct(Reach::Low);
    model.faults(|faults| faults.pull_at = Some(505));
    assert!(matches!(read_lines(&mut card, 500, 10), Err(CardError::Removed { .. })));
    model.faults(|faults| faults.pull_at = None);
    model.insert(CardKind::sdhc());
    assert!(read_lines(&mut identify(&model).unwrap(), 500, 10) == Ok(expected(500, 10)));
}

/// A card in a slot that can be switched to 1.8 V.
fn fast(kind: CardKind) -> (Model, Card) {
    let model = Model::new(kind).with_uhs(DDR50).with_reach(Reach::Low);
    let card = identify(&model).unwrap();
    (model, card)
}

/// A Raspberry Pi 5's controller with a card.
fn fastest(able: u32, kind: CardKind) -> (Model, Card) {
    let model = Model::new(kind).with_uhs(able).with_reach(Reach::High);
    model.set_base(200_000_000);
    let card = SdCard::identify(Sdhci::new(model.clone(), Some(200_000_000)), &mut Switches(model.clone()));
    (model, card.unwrap())
}

#[test]
fn with_a_controller_for_it_a_card_is_tuned_and_read_at_200_mhz() {
    let able = SDR50 | SDR104 | DDR50 | TUNE_SDR50;
    let kind = CardKind { low_voltage: LowVoltage::Sdr104, ..CardKind::uhs() };
    let (model, mut card) = fastest(able, kind.clone());
    assert_eq!(
        (card.timing(), card.clock_hz(), model.clock_hz()),
        (Timing::Sdr104, 200_000_000, 200_000_000)
    );
    assert!(read_lines(&mut card, 7, 9_000) == Ok(expected(7, 9_000)));
    assert_eq!(card.retries(), 0);
    // Errors make it tune again, and halve the clock in the end, which has to be tuned to, too.
    model.faults(|faults| faults.crc.insert(500, 3));
    assert!(read_lines(&mut card, 490, 20) == Ok(expected(490, 20)));
    assert_eq!((card.timing(), card.clock_hz()), (Timing::Sdr104, 100_000_000));
    assert!(read_lines(&mut card, 490, 20) == Ok(expected(490, 20)));
    // One that can't be tuned goes on at the next timing that both know.
    let untunable = CardKind { untunable: true, ..kind.clone() };
    assert_eq!(fastest(able, untunable.clone()).1.timing(), Timing::Ddr50);
    assert_eq!(fastest(SDR104 | SDR50, untunable.clone()).1.timing(), Timing::Sdr50);
    assert_eq!(fastest(SDR104 | SDR50 | TUNE_SDR50, untunable).1.timing(), Timing::HighSpeed);
    let (_, mut card) = fastest(able, CardKind { untunable: true, poor_at_ddr: true, ..kind.clone() });
    assert_eq!(card.timing(), Timing::HighSpeed);
    assert!(read_lines(&mut card, 5, 50) == Ok(expected(5, 50)));
    let (_, mut card) = fastest(SDR50 | TUNE_SDR50, kind);
    assert_eq!((card.timing(), card.clock_hz()), (Timing::Sdr50, 100_000_000));
    assert!(read_lines(&mut card, 5, 50) == Ok(expected(5, 50)));
}

#[test]
fn a_card_of_today_is_read_at_1v8_on_both_edges_of_50_mhz() {
    let (model, mut card) = fast(CardKind::uhs());
    assert_eq!((card.timing(), card.clock_hz(), model.clock_hz()), (Timing::Ddr50, 50_000_000, 50_000_000));
    for (first, count) in [(1, 1), (70_000, 640), (3, 9_000)] {
        assert!(read_lines(&mut card, first, count) == Ok(expected(first, count)));
        assert!(read_at(&mut card, 32, first, count) == Ok(expected(first, count)), "word by word, too");
    }
    assert_eq!(card.retries(), 0);
    // A second start finds it as the first left it: at 1.8 V, which only the supply undoes.
    let mut card = identify(&model).unwrap();
    assert_eq!(card.timing(), Timing::Ddr50);
    assert!(read_lines(&mut card, 9, 9) == Ok(expected(9, 9)));
}

#[test]
fn both_edges_take_half_the_time() {
    let time = |kind: CardKind| {
        let (model, mut card) = fast(kind);
        let before = model.nanos();
        assert!(read_lines(&mut card, 0, 8_000) == Ok(expected(0, 8_000)));
        model.nanos() - before
    };
    let (single, double) = (time(CardKind::sdhc()), time(CardKind::uhs()));
    assert!(double * 100 < single * 55, "{double} and {single} ns");
}

#[test]
fn a_card_that_can_do_less_at_1v8_does_that() {
    let (_, mut card) = fast(CardKind { low_voltage: LowVoltage::Sdr25, ..CardKind::uhs() });
    assert_eq!((card.timing(), card.clock_hz()), (Timing::Sdr25, 50_000_000));
    assert!(read_lines(&mut card, 5, 50) == Ok(expected(5, 50)));
    let (_, mut card) =
        fast(CardKind { low_voltage: LowVoltage::Nothing, high_speed: false, ..CardKind::uhs() });
    assert_eq!((card.timing(), card.clock_hz()), (Timing::Default, 25_000_000));
    assert!(read_lines(&mut card, 5, 50) == Ok(expected(5, 50)));
}

#[test]
fn what_fails_at_1v8_is_started_again_at_3v3() {
    let refuses = |kind: CardKind, no_1v8: bool| {
        let model = Model::new(kind).with_uhs(DDR50);
        model.faults(|faults| faults.no_1v8 = no_1v8);
        let mut card = identify(&model).unwrap();
        assert_eq!((card.timing(), card.clock_hz()), (Timing::HighSpeed, 50_000_000));
        assert!(read_lines(&mut card, 5, 50) == Ok(expected(5, 50)));
        assert_eq!(model.supplies().len(), 4, "off, on, and once more");
    };
    refuses(CardKind { lines_stuck: true, ..CardKind::uhs() }, false);
    refuses(CardKind { poor_at_ddr: true, ..CardKind::uhs() }, false);
    refuses(CardKind::uhs(), true);
}

#[test]
fn where_the_supply_cant_be_switched_signals_stay_at_3v3() {
    let model = Model::new(CardKind::uhs()).with_uhs(DDR50);
    let card = SdCard::identify(Sdhci::new(model.clone(), Some(100_000_000)), &mut AlwaysOn).unwrap();
    assert_eq!(card.timing(), Timing::HighSpeed);
}
