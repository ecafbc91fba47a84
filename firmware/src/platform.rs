//! The board as the shell sees it: console, cores, clocks, memory, files.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;

use embodios::source::InPlace;
use embodios::{ByteSource, Pool, ReadError};
use embodios_bsp::board::{Board, Devices, HeaderUart, Revision};
use embodios_bsp::cpu::cores::Team;
use embodios_bsp::cpu::pmu::Pmu;
use embodios_bsp::cpu::psci::Psci;
use embodios_bsp::cpu::{self, exception, guarded, prefetch, timer};
use embodios_bsp::drivers::framebuffer::{self, Framebuffer, FramebufferError, Surface};
use embodios_bsp::drivers::gic::Gic;
use embodios_bsp::drivers::mailbox::{self, Clock, ExpanderPin, Mailbox};
use embodios_bsp::drivers::pci;
use embodios_bsp::drivers::pl011::Registers;
use embodios_bsp::drivers::sd_card::{Capacity, CardError, SdCard, Timing, Width};
use embodios_bsp::drivers::sdhci::{self, AlwaysOn, CardPower, Mmio, Sdhci, Unsupported, Window};
use embodios_bsp::drivers::{self, Ring, Serial};
use embodios_bsp::handoff::Handoff;
use embodios_bsp::storage::{Buffers, File, StorageError, Volume};
use embodios_firmware::light::Signal;
use embodios_firmware::screen::Screen;
use embodios_firmware::{
    CoreReport, Counters, FileEntry, Greeting, Interrupts, Mib, Platform, Region, Stack, Status, Terminal,
    Waits, memory,
};
use spin::Once;

use crate::boot::{self, Entry, Layout};
use crate::copies;
use crate::lamp;
use crate::pool::Cores;

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("EMBODIOS_COMMIT"));
/// Speed of the console.
const BAUD: u32 = 115_200;
/// A Raspberry Pi 4's VPU core clock with `enable_uart=1`, if VideoCore does not say.
const CORE_CLOCK: u32 = 500_000_000;
/// A fault that is survived: one in the lines that try a register which a core need not have.
const GUARDED: &str = "guarded";
/// Why the header's UART can't be the console.
const NO_HEADER_UART: &str = "No UART answers behind RP1, a Raspberry Pi 5's: put `enable_rp1_uart=1` and `pciex4_reset=0` \
                              into config.txt. The console is the pl011.";
/// Longest sleep at the prompt where the receiver has to be looked at: at 115200 baud its 32 bytes take 2.8 ms.
const SHORT_NAP: Duration = Duration::from_millis(2);
/// Longest sleep at the prompt.
const NAP: Duration = Duration::from_millis(10);

/// All cores.
pub static TEAM: Team = Team::new();
/// What was received: room for a paste of 100 KB while the program is busy.
static RECEIVED: Ring<{ 128 * 1024 }> = Ring::new();
static DEVICES: Once<(&'static Board, Devices, Option<Psci>)> = Once::new();
/// The boot arguments allow semihosting.
static SEMIHOSTING: AtomicBool = AtomicBool::new(false);

/// Allows [`exit_emulator`], whose instruction is undefined where no debugger or emulator takes it.
pub fn allow_semihosting(allowed: bool) {
    SEMIHOSTING.store(allowed, Ordering::Relaxed);
}

/// Ends the emulator with this code where the boot arguments allow it; else returns.
pub fn exit_emulator(code: u32) {
    if SEMIHOSTING.load(Ordering::Relaxed) {
        last_resort().flush();
        cpu::semihosting_exit(code);
    }
}

/// The banner has begun.
static GREETED: AtomicBool = AtomicBool::new(false);
/// Which UART is the console.
static CONSOLE: AtomicU8 = AtomicU8::new(NONE);
/// The display, where there is one.
static SCREEN: Once<Screen> = Once::new();
/// Why there is none.
static NO_SCREEN: Once<FramebufferError> = Once::new();
/// The boot argument that says not to look for one.
const SCREEN_OFF: &str = "screen=off";
/// Interrupts that each core has taken.
static INTERRUPTS: [Taken; cpu::CORES_MAX] = [const { Taken::new() }; cpu::CORES_MAX];

/// Interrupts that one core has taken, by what they were for; on a cache line of its own.
#[repr(align(64))]
struct Taken {
    console: AtomicU64,
    wake: AtomicU64,
    other: AtomicU64,
}

impl Taken {
    const fn new() -> Self {
        Self { console: AtomicU64::new(0), wake: AtomicU64::new(0), other: AtomicU64::new(0) }
    }
}

const NONE: u8 = 0;
const PL011: u8 = 1;
const MINI: u8 = 2;
const HEADER: u8 = 3;

/// Read-ahead of the card: its tables, and file data. At 25 MB/s half a megabyte takes 20 ms, a command 0.1 ms.
const TABLE_BUFFER: usize = 64 << 10;
const DATA_BUFFER: usize = 512 << 10;

/// Makes the board known to interrupts and last words; with the firmware that its device tree names.
pub fn set_board(board: &'static Board, devices: Devices, firmware: Option<Psci>) {
    DEVICES.call_once(|| (board, devices, firmware));
}

/// The board's register blocks, once it is known.
pub fn devices() -> Option<&'static Devices> {
    DEVICES.get().map(|(_, devices, _)| devices)
}

/// VideoCore's mailbox, on boards that have one.
fn mailbox() -> Option<Mailbox<&'static mailbox::Registers>> {
    devices()?.mailbox.map(Mailbox::new)
}

/// A clock as VideoCore tells it. Off, it may be told as 0.
fn clock(clock: Clock) -> Option<u32> {
    mailbox()?.clock(clock).ok().filter(|&hz| hz > 0)
}

/// Has the board restart, or switch itself off, in a moment: by its watchdog, else by its firmware.
pub fn restart_board() {
    match DEVICES.get() {
        Some((_, Devices { power: Some(power), .. }, _)) => power.reboot(),
        Some((_, _, Some(firmware))) => firmware.reset(),
        _ => {}
    }
}

fn switch_off_board() {
    match DEVICES.get() {
        Some((_, Devices { power: Some(power), .. }, _)) => power.power_off(),
        Some((_, _, Some(firmware))) => firmware.power_off(),
        _ => {}
    }
}

fn gic() -> Option<Gic> {
    devices().map(|devices| Gic::new(devices.distributor, devices.interface))
}

/// The console, once it is chosen.
pub fn console() -> Option<&'static dyn Serial> {
    let devices = devices()?;
    match CONSOLE.load(Ordering::Acquire) {
        PL011 => Some(devices.pl011),
        MINI => devices.mini_uart.map(|mini| mini as &dyn Serial),
        HEADER => header_uart().map(|uart| uart as &dyn Serial),
        _ => None,
    }
}

/// A line that takes bytes and drops them.
struct Nowhere;

impl Serial for Nowhere {
    fn read(&self) -> Option<u8> {
        None
    }
    fn write(&self, _: u8) -> bool {
        true
    }
    fn flush(&self) {}
    fn notify(&self, _: bool) {}
    fn acknowledge(&self) {}
}

/// The console for last words: the chosen one, else a PL011 started as well as one can without asking anybody.
pub fn last_resort() -> &'static dyn Serial {
    match (console(), DEVICES.get()) {
        (Some(console), _) => console,
        (None, Some((board, devices, _))) => {
            CONSOLE.store(PL011, Ordering::Release);
            if let Some(pins) = devices.gpio {
                pins.route_pl011_to_header();
            }
            devices.pl011.start(board.pl011_clock.map(|hz| (hz, BAUD)));
            devices.pl011
        }
        (None, None) => &Nowhere,
    }
}

/// A serial port that can be the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The PL011: on the header of a Raspberry Pi 4, the debug port of a Pi 5.
    Pl011,
    /// The mini-UART, on the same pins of a Raspberry Pi 4.
    Mini,
    /// The UART on the header of a Raspberry Pi 5, behind RP1.
    Header,
}

impl Port {
    /// The one that the boot arguments ask for.
    pub fn asked_for(handoff: &Handoff) -> Self {
        match () {
            () if handoff.has_argument("console=mini") => Self::Mini,
            () if handoff.has_argument("console=rp1") => Self::Header,
            () => Self::Pl011,
        }
    }
}

/// The header's UART behind RP1, looked for once, when it is asked for.
fn header_uart() -> Option<&'static Registers> {
    static FOUND: Once<Option<HeaderUart>> = Once::new();
    let (board, ..) = DEVICES.get()?;
    FOUND.call_once(|| boot::header_uart(board)).map(|found| found.0)
}

/// Makes a port the console; where there is none such, the PL011, and false is returned. The others fall silent.
pub fn choose_console(port: Port) -> bool {
    let Some((board, devices, _)) = DEVICES.get() else { return false };
    if let Some(before) = console() {
        before.flush();
        before.notify(false);
    }
    CONSOLE.store(NONE, Ordering::Release);
    let (which, interrupt) = match (port, devices.mini_uart, board.mini_uart) {
        (Port::Mini, Some(uart), Some((_, interrupt))) => {
            if let Some(pins) = devices.gpio {
                pins.route_mini_uart_to_header();
            }
            uart.start(clock(Clock::Core).unwrap_or(CORE_CLOCK), BAUD);
            (MINI, Some(interrupt))
        }
        (Port::Header, ..)
            if header_uart().is_some_and(|uart| {
                uart.start(None); // at the boot loader's speed
                true
            }) =>
        {
            (HEADER, None) // its interrupt is a message over PCIe: it is looked at instead
        }
        _ => {
            if let Some(pins) = devices.gpio {
                pins.route_pl011_to_header();
            }
            let speed = board.pl011_clock.map(|usual| (clock(Clock::Uart).unwrap_or(usual), BAUD));
            devices.pl011.start(speed);
            (PL011, Some(devices.pl011_interrupt))
        }
    };
    CONSOLE.store(which, Ordering::Release);
    if let (Some(gic), Some(console), Some(interrupt)) = (gic(), console(), interrupt) {
        gic.enable(interrupt);
        console.notify(true);
    }
    let chosen = match which {
        MINI => Port::Mini,
        HEADER => Port::Header,
        _ => Port::Pl011,
    };
    chosen == port
}

/// Sends the banner's first line to the console just chosen, and with the first one to the display: whatever goes
/// wrong from here on is seen to come from a board that runs.
pub fn greet() {
    let text = format!("\r\n{Greeting}\r\n");
    if let Some(console) = console() {
        let _ = text.bytes().all(|byte| console.write(byte)); // as any text
    }
    if !GREETED.swap(true, Ordering::Relaxed) {
        show(text.as_bytes());
    }
}

/// Lets core 0 take interrupts: console and timer.
pub fn start_interrupts() {
    if let Some(gic) = gic() {
        gic.start();
        gic.start_core();
        gic.enable(timer::INTERRUPT);
    }
    TEAM.open(wake, acknowledge);
}

/// Lets another core be woken.
pub fn start_core_interrupts() {
    if let Some(gic) = gic() {
        gic.start_core();
    }
    cpu::unmask_errors();
}

fn wake(core: usize) {
    if let Some(gic) = gic() {
        gic.wake(core);
    }
}

/// On cores 1 to 3, which take no other interrupts than the one that wakes them.
fn acknowledge() {
    if let Some(gic) = gic() {
        let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
        while let Some(taken) = gic.take() {
            let kind = if taken.is_wake() { &counts.wake } else { &counts.other };
            kind.fetch_add(1, Ordering::Relaxed);
            gic.end(taken);
        }
    }
}

/// Takes what is pending on core 0.
pub fn interrupt() {
    let (Some(gic), Some((board, devices, _))) = (gic(), DEVICES.get()) else { return };
    let counts = &INTERRUPTS[cpu::core() % cpu::CORES_MAX];
    while let Some(taken) = gic.take() {
        let number = taken.number();
        let mini = board.mini_uart.map(|(_, interrupt)| interrupt);
        let kind = if number == devices.pl011_interrupt || Some(number) == mini {
            receive();
            &counts.console
        } else if taken.is_wake() {
            &counts.wake
        } else {
            match number {
                timer::INTERRUPT => timer::cancel_wake(),
                32.. => gic.disable(number), // nobody asked for it: it would come for ever
                _ => {}
            }
            &counts.other
        };
        kind.fetch_add(1, Ordering::Relaxed);
        gic.end(taken);
    }
}

/// Takes everything out of the console's receiver.
fn receive() {
    if let Some(console) = console() {
        console.acknowledge();
        // As many as come within a second at 115200 baud: a line that is never empty is no line.
        for byte in core::iter::from_fn(|| console.read()).take(BAUD as usize / 10) {
            RECEIVED.push(byte);
        }
    }
}

/// Whether the receiver has to be looked at: one behind RP1, and one that has never interrupted us. Should that interrupt
/// be another than we think, which no emulator can tell, the console works all the same.
fn is_looked_at() -> bool {
    CONSOLE.load(Ordering::Relaxed) == HEADER || INTERRUPTS[0].console.load(Ordering::Relaxed) == 0
}

/// Looks at the receiver, if that has to be.
fn look_for_input() {
    if is_looked_at() {
        let _masked = cpu::Masked::new();
        receive();
    }
}

/// The console as the shell's terminal.
pub struct Line;

impl Terminal for Line {
    fn read(&mut self) -> Option<u8> {
        RECEIVED.pop()
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(console) = console() {
            // A line that takes no byte in time takes none of this text.
            let _ = bytes.iter().all(|&byte| console.write(byte));
        }
        show(bytes); // while the last of them are sent
    }

    fn wait(&mut self) {
        lamp::show();
        {
            look_for_input();
            // Masked, so that a byte that comes after the look still ends the sleep.
            let _masked = cpu::Masked::new();
            if RECEIVED.is_empty() {
                timer::wake_after(if is_looked_at() { SHORT_NAP } else { NAP });
                cpu::wait_for_interrupt();
            }
        }
        timer::cancel_wake();
    }

    fn greeted(&self) -> bool {
        GREETED.load(Ordering::Relaxed)
    }

    fn lost(&mut self) -> u64 {
        RECEIVED.take_lost() + drivers::take_lost()
    }
}

/// The board was only guessed: nothing else was known when something fell.
static GUESSED: AtomicBool = AtomicBool::new(false);

/// For last words before the hand-over was read: the board that has cores like these. False if there is none, or
/// if this has led to a fault itself.
pub fn guess_board() -> bool {
    if DEVICES.get().is_some() {
        return !GUESSED.load(Ordering::Relaxed);
    }
    GUESSED.store(true, Ordering::Relaxed);
    let board = Board::detect(core::iter::empty(), cpu::part());
    set_board(board, boot::devices(board), None);
    if let Some(Devices { led: Some(led), .. }) = devices() {
        led.start();
    }
    true
}

/// What the light shows of an error of the card.
fn signal_card(error: &StorageError) {
    match error {
        StorageError::Card(CardError::NoCard | CardError::Removed { .. }) => lamp::signal(Signal::NoCard),
        // Of a file, or of how we asked for it.
        StorageError::FileNotFound | StorageError::PastEnd { .. } | StorageError::InUse => {}
        _ => lamp::signal(Signal::CardUnreadable),
    }
}

/// Shows text on the display, if there is one.
pub fn show(bytes: &[u8]) {
    if let Some(screen) = SCREEN.get() {
        screen.write(bytes);
    }
}

/// Asks VideoCore for a picture on the display, and keeps its memory out of ours.
pub fn ask_for_picture(handoff: &mut Handoff) -> Option<Framebuffer> {
    let mailbox = mailbox()?;
    if handoff.has_argument(SCREEN_OFF) {
        return None;
    }
    let picture = framebuffer::request(&mailbox).map_err(|error| *NO_SCREEN.call_once(|| error)).ok()?;
    let image = boot::image();
    let overlaps = |range: &Range<u64>| range.start < picture.memory.end && picture.memory.start < range.end;
    if overlaps(&(image.code.start..image.stacks.end)) || handoff.initrd.as_ref().is_some_and(overlaps) {
        return None; // that can't be, and must not be written to
    }
    handoff.keep_out(picture.memory.clone());
    Some(picture)
}

/// What `status` says of the display.
fn display() -> Option<String> {
    match (SCREEN.get(), NO_SCREEN.get()) {
        (Some(screen), _) => {
            let (columns, rows) = screen.size();
            let (width, height) = screen.pixels();
            Some(format!("{columns} x {rows} characters on a picture of {width} x {height}"))
        }
        (None, Some(why)) => Some(format!("none: {why}")),
        (None, None) => mailbox().map(|_| format!("none, as the boot argument {SCREEN_OFF} says")),
    }
}

/// Makes the picture a screen that shows what the console says.
pub fn open_screen(surface: Option<Surface>) {
    if let Some(screen) = surface.and_then(Screen::new) {
        SCREEN.call_once(|| screen);
    }
}

/// Raises the Arm clock to its maximum: the boot loader hands over at its lowest. The core clock may move with
/// it, and the mini-UART's speed hangs on that.
pub fn raise_clocks() {
    let Some(mailbox) = mailbox() else { return };
    if let Ok(most) = mailbox.max_clock(Clock::Arm)
        && most > 0
        && let Some(console) = console()
    {
        console.flush();
        let _ = mailbox.set_clock(Clock::Arm, most); // refused, it stays as it is: `status` shows it
    }
    if CONSOLE.load(Ordering::Acquire) == MINI
        && let Some(Devices { mini_uart: Some(uart), .. }) = devices()
        && let Some(hz) = clock(Clock::Core)
    {
        uart.set_clock(hz, BAUD);
    }
}

/// RAM as VideoCore knows it, when the boot loader told nothing: the part in the first GiB. And its own share,
/// should the boot loader have counted that as ours.
pub fn ask_for_memory(handoff: &mut Handoff) {
    let Some(mailbox) = mailbox() else { return };
    let range = |(start, bytes): (u32, u32)| u64::from(start)..u64::from(start) + u64::from(bytes);
    if let (true, Ok(memory)) = (handoff.banks.is_empty(), mailbox.arm_memory()) {
        let _ = handoff.banks.push(range(memory)); // the first fits
    }
    if let Ok(share) = mailbox.videocore_memory().map(range) {
        handoff.keep_out(share);
    }
}

/// The pins around the card socket of a Raspberry Pi 4, behind VideoCore's GPIO expander.
struct Socket<'a>(Mailbox<&'a mailbox::Registers>);

impl CardPower for Socket<'_> {
    fn signal_3v3(&mut self) -> Result<(), Unsupported> {
        self.0.set_expander(ExpanderPin::SdVoltage, false).map_err(|_| Unsupported)
    }
    fn signal_1v8(&mut self) -> Result<(), Unsupported> {
        self.0.set_expander(ExpanderPin::SdVoltage, true).map_err(|_| Unsupported)
    }
    fn supply(&mut self, on: bool) -> Result<(), Unsupported> {
        let pin = self.0.set_expander(ExpanderPin::SdPower, on);
        if on {
            let _ = self.0.set_power(0, true); // firmware that counts users of the card's clock wants to know
        }
        pin.map_err(|_| Unsupported)
    }
}

type Card = Volume<Box<[u8]>, SdCard<Sdhci<Mmio>>>;

/// The card in words.
fn described(card: &SdCard<Sdhci<Mmio>>) -> String {
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
struct CardFile {
    card: Rc<Card>,
    file: File,
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

/// The board, for the shell.
pub struct Machine {
    entry: Entry,
    handoff: Handoff,
    layout: Layout,
    name: String,
    revision: Option<u32>,
    pool: Cores,
    monitor: Option<Monitor>,
    card: Option<Rc<Card>>,
}

/// The cores' performance monitors as the engine's counters.
struct Monitor(Pmu);

impl Counters for Monitor {
    fn events(&self) -> &[&'static str] {
        self.0.events()
    }
    fn start(&self) {
        self.0.start();
    }
    fn read(&self, counts: &mut [u64]) {
        self.0.read(counts);
    }
}

impl Machine {
    /// The board with what was found out about it.
    pub fn new(entry: Entry, handoff: Handoff, layout: Layout) -> Option<Self> {
        let (board, ..) = DEVICES.get()?;
        let told = mailbox().and_then(|mailbox| mailbox.revision().ok());
        let revision = told.or(handoff.revision); // a firmware that does not know the tag has patched the tree
        let named = revision.and_then(|code| Revision(code).model());
        // QEMU's virt calls itself what it is compatible with: no name for people.
        let told = Some(handoff.model.as_str()).filter(|name| !name.is_empty() && *name != board.compatible);
        let name = String::from(told.or(named).unwrap_or(board.name));
        let monitor = Pmu::detect().map(Monitor);
        Some(Self { entry, handoff, layout, name, revision, pool: Cores(&TEAM), monitor, card: None })
    }

    /// The SD host, and the memory that it reaches by itself.
    fn sd_host(&self) -> Option<(&'static sdhci::Registers, Option<Window>)> {
        let (board, devices, _) = DEVICES.get()?;
        if let Some(registers) = devices.sd_host {
            let known = board.sd_slot.map(|place| Window { bus: 0, memory: 0, bytes: place.reach });
            return Some((registers, known.or(self.handoff.sd_window)));
        }
        let ((bus, registers, address), place) = (devices.pci?, board.pci?);
        // A bus elsewhere is not mapped.
        if self.handoff.pci != Some(place.bus) || !pci::set_up_sd_host(bus, address) {
            return None;
        }
        // What is plugged in sees memory as we do.
        Some((registers, Some(Window { bus: 0, memory: 0, bytes: u64::MAX })))
    }

    /// Identifies the card and its volume.
    fn mount(&self) -> Result<Card, String> {
        let Some((registers, reach)) = self.sd_host() else {
            return Err(String::from(DEVICES.get().map_or("", |(board, ..)| board.without_card)));
        };
        let (Some(table), Some(data)) = (window(TABLE_BUFFER), window(DATA_BUFFER)) else {
            return Err(String::from("there is no memory left to read the card with"));
        };
        let most = || mailbox()?.max_clock(Clock::Emmc2).ok().filter(|&hz| hz > 0);
        let bus = Mmio::new(registers, timer::now_micros, reach);
        let slot = DEVICES.get().and_then(|(board, devices, _)| Some((devices.sd_slot?, board.sd_slot?)));
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

    /// Does something with the card's volume; finds the card first if there was none or it was taken out.
    fn with_card<T>(&mut self, act: impl Fn(&Rc<Card>) -> Result<T, StorageError>) -> Result<T, String> {
        if let Some(card) = &self.card {
            match act(card) {
                Err(StorageError::Card(_)) => self.card = None,
                done => return done.map_err(|error| error.to_string()),
            }
        }
        let card = Rc::new(self.mount()?);
        // A card came to where there was none that could be read.
        if [Signal::NoCard, Signal::CardUnreadable].contains(&lamp::signalled()) {
            lamp::signal(Signal::NoModel);
        }
        let done = act(&card).inspect_err(signal_card).map_err(|error| error.to_string());
        self.card = Some(card);
        done
    }

    fn region(name: &str, range: &Range<u64>, used: u64) -> Region {
        Region { name: String::from(name), start: range.start, bytes: range.end - range.start, used }
    }

    /// Gives watchdog or firmware its time.
    fn wait_for_the_end(&self) -> ! {
        timer::pause(Duration::from_secs(1));
        Line.write(b"The board did not obey: switch it off and on.\r\n");
        cpu::park()
    }
}

impl Platform for Machine {
    fn pool(&self) -> &dyn Pool {
        &self.pool
    }

    fn nanos(&self) -> u64 {
        timer::now_nanos()
    }

    fn boot_to_prompt_nanos(&self) -> u64 {
        timer::ticks_to_nanos(timer::ticks().saturating_sub(self.entry.ticks), timer::frequency())
    }

    fn random_seed(&self) -> u64 {
        // The time a person took, in ticks, spread over all bits.
        let mut mixed = timer::ticks().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn interrupted(&self) -> bool {
        cpu::pmu::keep_count(); // asked once a layer: often enough, and by whoever has no pool, too
        lamp::light(true); // it works
        look_for_input();
        RECEIVED.interrupted()
    }

    fn clear_interrupt(&self) {
        RECEIVED.clear_interrupt();
    }

    fn status(&self) -> Status {
        let mailbox = mailbox();
        let mailbox = mailbox.as_ref();
        let measured = mailbox.and_then(|mailbox| mailbox.measured_clock(Clock::Arm).ok());
        Status {
            board: self.name.clone(),
            revision: self.revision,
            cores: TEAM.width(),
            cpu: String::from(cpu::name()),
            ram: self.handoff.ram(),
            arm_hz: measured.or_else(|| clock(Clock::Arm)).map(u64::from),
            arm_max_hz: mailbox.and_then(|mailbox| mailbox.max_clock(Clock::Arm).ok()).map(u64::from),
            core_hz: clock(Clock::Core).map(u64::from),
            temperature_milli: mailbox.and_then(|mailbox| mailbox.temperature().ok()),
            throttled: mailbox.and_then(|mailbox| mailbox.throttled().ok()),
            display: display(),
            card: self.card.as_ref().map(|volume| volume.device(described)),
        }
    }

    fn throttled(&self) -> Option<u32> {
        mailbox()?.throttled().ok()
    }

    fn memory(&self) -> Vec<Region> {
        let image = boot::image();
        let kernel = image.code.start..image.stacks.start;
        let mut regions = vec![Self::region("kernel", &kernel, kernel.end - kernel.start)];
        let (mut stacks, mut used) = (image.stacks.clone(), 0);
        stacks.end = stacks.start;
        for core in 0..cpu::CORES_MAX {
            let (bytes, touched) = boot::stack_use(core);
            stacks.end += bytes;
            used += touched;
        }
        stacks.end = image.stacks.end;
        regions.push(Self::region("stacks", &stacks, used));
        let (now, _) = crate::HEAP.small_use();
        regions.push(Self::region("heap", &self.layout.heap, now));
        for range in &self.layout.large {
            let free = crate::HEAP.large_free_within(range);
            regions.push(Self::region("models", range, range.end - range.start - free));
        }
        for (name, range) in [("initrd", &self.layout.initrd), ("device tree", &self.layout.tree)] {
            if let Some(range) = range {
                regions.push(Self::region(name, range, range.end - range.start));
            }
        }
        for range in &self.layout.reserved {
            regions.push(Self::region("boot loader", range, range.end - range.start));
        }
        if let Some(Ok((start, bytes))) = mailbox().map(|mailbox| mailbox.videocore_memory()) {
            let range = u64::from(start)..u64::from(start) + u64::from(bytes);
            // The boot loader may have reserved it, with more.
            if !self.layout.reserved.iter().any(|reserved| reserved.contains(&range.start)) {
                regions.push(Self::region("VideoCore", &range, bytes.into()));
            }
        }
        regions.sort_by_key(|region| region.start);
        regions
    }

    fn memory_free(&self) -> u64 {
        crate::HEAP.large_free()
    }

    fn memory_holds(&self, pieces: &[u64]) -> bool {
        memory::hold(&self.layout.large, pieces)
    }

    fn interrupts(&self) -> Option<Interrupts> {
        let sum = |kind: fn(&Taken) -> &AtomicU64| {
            INTERRUPTS.iter().map(|core| kind(core).load(Ordering::Relaxed)).sum()
        };
        Some(Interrupts {
            console: sum(|core| &core.console),
            wake: sum(|core| &core.wake),
            other: sum(|core| &core.other),
        })
    }

    fn waits(&self) -> Option<Waits> {
        Some(Waits { jobs: TEAM.jobs(), sleeps: TEAM.sleeps() })
    }

    fn counters(&self) -> Option<&dyn Counters> {
        self.monitor.as_ref().map(|monitor| monitor as &dyn Counters)
    }

    fn allocations(&self) -> Option<u64> {
        Some(crate::HEAP.allocations())
    }

    fn copied(&self) -> Option<u64> {
        Some(copies::copied())
    }

    fn heap(&self) -> Option<(u64, u64)> {
        Some(crate::HEAP.small_use())
    }

    fn stacks(&self) -> Vec<Stack> {
        let stack = |core| {
            let (bytes, most) = boot::stack_use(core);
            Stack { name: format!("core {core}"), bytes, most }
        };
        (0..TEAM.width()).map(stack).collect()
    }

    fn cores(&self) -> Vec<CoreReport> {
        // Number + 1, so that a core that did not answer is seen; kind; frequency; time.
        let told = [const { [const { AtomicU64::new(0) }; 4] }; cpu::CORES_MAX];
        TEAM.run(&|worker| {
            if let Some([number, kind, frequency, nanos]) = told.get(worker) {
                kind.store(cpu::identification(), Ordering::Relaxed);
                frequency.store(timer::frequency(), Ordering::Relaxed);
                nanos.store(timer::now_nanos(), Ordering::Relaxed);
                number.store(cpu::core() as u64 + 1, Ordering::Relaxed);
            }
        });
        let read = |[number, kind, frequency, nanos]: &[AtomicU64; 4]| CoreReport {
            number: number.load(Ordering::Relaxed).wrapping_sub(1) as usize,
            kind: kind.load(Ordering::Relaxed),
            frequency: frequency.load(Ordering::Relaxed),
            nanos: nanos.load(Ordering::Relaxed),
        };
        told.iter().map(read).filter(|report| report.number != usize::MAX).collect()
    }

    fn chip_micros(&self) -> Option<u64> {
        devices()?.system_timer.map(|timer| timer.micros())
    }

    fn firmware(&self) -> Option<u32> {
        mailbox()?.firmware().ok()
    }

    fn has_card_slot(&self) -> bool {
        self.sd_host().is_some()
    }

    fn read_card(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), String> {
        let buffer = core::cell::RefCell::new(buffer);
        self.with_card(|card| card.read_blocks(first, &mut buffer.borrow_mut()))
    }

    fn files(&mut self) -> Result<Vec<FileEntry>, String> {
        self.with_card(|card| {
            let mut files = Vec::new();
            card.for_each(&mut |entry| {
                if !entry.hidden {
                    files.push(FileEntry { name: String::from(entry.name), bytes: entry.size });
                }
            })?;
            Ok(files)
        })
    }

    fn open(&mut self, name: &str) -> Result<Box<dyn ByteSource>, String> {
        self.with_card(|card| {
            let file = card.open(name)?;
            Ok(Box::new(CardFile { card: Rc::clone(card), file }) as Box<dyn ByteSource>)
        })
    }

    fn preloaded(&self) -> Option<&'static InPlace> {
        boot::initrd(&self.layout)
    }

    fn arguments(&self) -> &str {
        &self.handoff.arguments
    }

    fn signal(&self, what: Signal) {
        lamp::signal(what);
    }

    fn set_console(&mut self, name: &str) -> Result<(), String> {
        let (port, which) = match name {
            "pl011" | "auto" => (Port::Pl011, PL011),
            "mini-uart" | "mini" => (Port::Mini, MINI),
            "rp1" => (Port::Header, HEADER),
            _ => return Err(String::from("The consoles are pl011, mini-uart and rp1.")),
        };
        if port == Port::Mini && devices().is_none_or(|devices| devices.mini_uart.is_none()) {
            return Err(String::from("This board has no mini-UART: the console is the pl011."));
        }
        if port == Port::Header && header_uart().is_none() {
            return Err(String::from(NO_HEADER_UART));
        }
        if CONSOLE.load(Ordering::Acquire) != which {
            choose_console(port);
            greet();
        }
        Ok(())
    }

    fn set_prefetch(&mut self, distance: u8) -> Result<(), String> {
        let refused = spin::Mutex::new(None);
        TEAM.run(&|_| {
            if let Err(why) = prefetch::set(distance) {
                *refused.lock() = Some(why);
            }
        });
        refused.into_inner().map_or(Ok(()), |why| Err(why.to_string()))
    }

    fn provoke(&mut self, kind: &str) -> Result<(), String> {
        // `read 2` commits it on core 2.
        let mut words = kind.split_whitespace();
        let (kind, core) = (words.next().unwrap_or_default(), words.next().unwrap_or("0"));
        let core = core.parse().ok().filter(|&core: &usize| core < TEAM.width());
        let known = exception::KINDS.contains(&kind) || kind == "panic" || kind == GUARDED;
        let (true, Some(core)) = (known, core) else {
            let (kinds, last) = (exception::KINDS.join(", "), TEAM.width() - 1);
            return Err(format!(
                "The kinds are {kinds}, panic and {GUARDED} (survived); a core, 0 to {last}, may follow."
            ));
        };
        if let Some(console) = console() {
            console.flush();
        }
        let survived = AtomicBool::new(false);
        TEAM.run(&|worker| {
            if worker == core {
                if kind == GUARDED {
                    survived.store(guarded::trap_on_purpose(), Ordering::Relaxed);
                    return;
                }
                assert!(kind != "panic", "provoked by the command `fault panic`");
                exception::provoke(kind);
            }
        });
        if survived.into_inner() {
            return Err(format!(
                "Core {core} has survived an undefined instruction where one is allowed for."
            ));
        }
        Err(format!("Nothing happened: the fault `{kind}` was not caught."))
    }

    fn exit(&mut self, code: u32) {
        exit_emulator(code);
    }

    fn reboot(&mut self) {
        if let Some(console) = console() {
            console.flush();
        }
        restart_board();
        self.wait_for_the_end()
    }

    fn power_off(&mut self) {
        if let Some(console) = console() {
            console.flush();
        }
        switch_off_board();
        self.wait_for_the_end()
    }
}

/// What the boot loader and the cores left to say, before the banner.
pub fn report(handoff: &Handoff, layout: &Layout, here: &[bool], wanted: usize) {
    let say = |text: String| Line.write(text.as_bytes());
    if Port::asked_for(handoff) == Port::Header && header_uart().is_none() {
        say(format!("{NO_HEADER_UART}\r\n"));
    }
    for (core, _) in here.iter().enumerate().take(wanted).filter(|(_, here)| !**here) {
        say(format!("Core {core} did not start: going on with {}.\r\n", TEAM.width()));
    }
    if handoff.incomplete {
        say(String::from(
            "The boot loader's description of the board was damaged or too long: part of it is unused.\r\n",
        ));
    }
    if handoff.initrd.is_some() && layout.initrd.is_none() {
        say(String::from(
            "The boot loader put the model outside RAM or into the kernel's own memory: it is not used. Give \
             `initramfs` in config.txt an address instead of `followkernel`.\r\n",
        ));
    }
    if handoff.banks.is_empty() {
        say(String::from(
            "Nobody told how much RAM there is: check that start4.elf and the .dtb file are on the card.\r\n",
        ));
    }
}
