//! The card slot: its host, its power, its volume, its files.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use embodios::{ByteSource, ReadError};
use embodios_bsp::board::Devices;
use embodios_bsp::cpu::timer;
use embodios_bsp::drivers::mailbox::Clock;
use embodios_bsp::drivers::pci;
use embodios_bsp::drivers::sd_card::{Capacity, CardError, SdCard, Timing, Width};
use embodios_bsp::drivers::sd_socket::Socket;
use embodios_bsp::drivers::sdhci::{self, AlwaysOn, Mmio, Sdhci, Window};
use embodios_bsp::handoff::Handoff;
use embodios_bsp::storage::{Buffers, File, StorageError, Volume};
use embodios_firmware::Mib;
use embodios_firmware::light::Signal;

use super::board::{DEVICES, clock, devices, mailbox};
use crate::lamp;

/// Read-ahead of the card: its tables, and file data. At 25 MB/s half a megabyte takes 20 ms, a command 0.1 ms.
const TABLE_BUFFER: usize = 64 << 10;
const DATA_BUFFER: usize = 512 << 10;

pub type Card = Volume<Box<[u8]>, SdCard<Sdhci<Mmio>>>;

/// The card in words.
pub fn described(card: &SdCard<Sdhci<Mmio>>) -> String {
    let kind = if card.capacity() == Capacity::Standard { "SDSC" } else { "SDHC" };
    let lines = if card.width() == Width::Four { 4 } else { 1 };
    let timing = match card.timing() {
        Timing::Default => "3.3 V",
        Timing::HighSpeed => "high speed",
        Timing::Sdr12 => "SDR12",
        Timing::Sdr25 => "SDR25",
        Timing::Ddr50 => "DDR50",
        Timing::Sdr50 => "SDR50",
        Timing::Sdr104 => "SDR104",
    };
    let (by_core, by_controller) = card.host_ref().moved();
    format!(
        "{kind}, {} MB, {} MHz {timing}, {lines} lines; read {} by DMA, {} by the core, {} repeated",
        card.blocks() * 512 / 1_000_000,
        card.clock_hz() / 1_000_000,
        Mib(by_controller),
        Mib(by_core),
        card.retries(),
    )
}

/// Memory for read-ahead, given back with the volume.
fn window(bytes: usize) -> Option<Box<[u8]>> {
    let mut window = Vec::new();
    window.try_reserve_exact(bytes).ok()?;
    window.resize(bytes, 0);
    Some(window.into_boxed_slice())
}

/// A file on the card as the engine's source.
pub struct CardFile {
    pub card: Rc<Card>,
    pub file: File,
}

impl ByteSource for CardFile {
    fn len(&self) -> u64 {
        self.file.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.card.read_at(&self.file, offset, buffer).inspect_err(signal_card).map_err(|error| match error {
            StorageError::PastEnd { offset, length, size } => {
                ReadError::PastEnd { offset, wanted: length as u64, len: size }
            }
            other => ReadError::Device(other.to_string()),
        })
    }
}

/// The SD host, and the memory that it reaches by itself.
pub fn sd_host(handoff: &Handoff) -> Option<(&'static sdhci::Registers, Option<Window>)> {
    let (board, devices, _) = DEVICES.get()?;
    if let Some(registers) = devices.sd_host {
        let known = board.sd_slot.map(|place| Window { bus: 0, memory: 0, bytes: place.reach });
        return Some((registers, known.or(handoff.sd_window)));
    }
    let ((bus, registers, address), place) = (devices.pci?, board.pci?);
    // A bus elsewhere is not mapped.
    if handoff.pci != Some(place.bus) || !pci::set_up_sd_host(bus, address) {
        return None;
    }
    // What is plugged in sees memory as we do.
    Some((registers, Some(Window { bus: 0, memory: 0, bytes: u64::MAX })))
}

/// Identifies the card and its volume.
pub fn mount(handoff: &Handoff) -> Result<Card, String> {
    let Some((registers, reach)) = sd_host(handoff) else {
        return Err(String::from(DEVICES.get().map_or("", |(board, ..)| board.without_card)));
    };
    let (Some(table), Some(data)) = (window(TABLE_BUFFER), window(DATA_BUFFER)) else {
        return Err(String::from("there is no memory left to read the card with"));
    };
    let most = || mailbox()?.max_clock(Clock::Emmc2).ok().filter(|&hz| hz > 0);
    let bus = Mmio::new(registers, timer::now_micros, reach);
    let slot = DEVICES.get().and_then(|(board, devices, _)| Some((devices.sd_slot?, board.sd_slot?)));
    USED.store(true, Ordering::Relaxed);
    let card = match (slot, mailbox()) {
        (Some((mut slot, place)), _) => SdCard::identify(Sdhci::new(bus, Some(place.clock)), &mut slot),
        (None, Some(mailbox)) => {
            let host = Sdhci::new(bus, clock(Clock::Emmc2).or_else(most));
            SdCard::identify(host, &mut Socket(mailbox))
        }
        (None, None) => SdCard::identify(Sdhci::new(bus, None), &mut AlwaysOn),
    };
    let card = card.map_err(StorageError::Card);
    let volume = card.and_then(|card| Volume::mount(card, Buffers { table, data }));
    volume.inspect_err(signal_card).map_err(|error| error.to_string())
}

/// The card was given commands, at whatever level and speed.
static USED: AtomicBool = AtomicBool::new(false);

/// Leaves the card as a board that is switched on finds it, for whoever starts next. Once: should this lead to a fault, the
/// board restarts without. Takes no lock, and all its waits end, so that last words can do it, on any core.
pub fn give_back() {
    if !USED.swap(false, Ordering::Relaxed) {
        return;
    }
    let Some(Devices { sd_host: Some(registers), sd_slot, .. }) = devices() else { return }; // on PCI it has no switch
    let mut host = Sdhci::new(Mmio::new(registers, timer::now_micros, None), None);
    match (*sd_slot, mailbox()) {
        (Some(mut slot), _) => host.give_back(&mut slot),
        (None, Some(mailbox)) => host.give_back(&mut Socket(mailbox)),
        (None, None) => {}
    }
}

/// What the light shows of an error of the card.
pub fn signal_card(error: &StorageError) {
    match error {
        StorageError::Card(CardError::NoCard | CardError::Removed { .. }) => lamp::signal(Signal::NoCard),
        // Of a file, or of how we asked for it.
        StorageError::FileNotFound | StorageError::PastEnd { .. } | StorageError::InUse => {}
        _ => lamp::signal(Signal::CardUnreadable),
    }
}
