//! The board as the shell sees it: console, cores, clocks, memory, files.

mod board;
mod card;
mod console;
mod display;
mod interrupts;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use embodios::source::InPlace;
use embodios::{ByteSource, Pool};
use embodios_bsp::board::{Begun, Revision};
use embodios_bsp::cpu::cores::Team;
use embodios_bsp::cpu::pmu::Pmu;
use embodios_bsp::cpu::{self, exception, guarded, prefetch, timer};
use embodios_bsp::drivers::mailbox::Clock;
use embodios_bsp::handoff::Handoff;
use embodios_bsp::storage::StorageError;
use embodios_firmware::light::Signal;
use embodios_firmware::{
    CoreReport, Counters, FileEntry, Interrupts, Mib, NoInterrupts, Platform, Region, Stack, Status,
    Terminal, Waits, memory,
};

use self::board::{DEVICES, clock, mailbox, switch_off_board};
pub use self::board::{
    allow_semihosting, ask_for_memory, devices, exit_emulator, guess_board, raise_clocks, restart_board,
    set_board,
};
use self::card::{Card, CardFile, signal_card};
pub use self::console::{Line, Port, choose_console, greet, last_resort};
use self::console::{NO_HEADER_UART, RECEIVED, console, header_uart, is_console, look_for_input};
pub use self::display::{ask_for_picture, open_screen, show};
pub use self::interrupts::{interrupt, start_core_interrupts, start_interrupts};
use crate::boot::{self, Entry, Layout};
use crate::copies;
use crate::lamp;
use crate::pool::Cores;

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("EMBODIOS_COMMIT"));
/// A fault that is survived: one in the lines that try a register which a core need not have.
const GUARDED: &str = "guarded";

/// All cores.
pub static TEAM: Team = Team::new();

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

    /// Does something with the card's volume; finds the card first if there was none or it was taken out.
    fn with_card<T>(&mut self, act: impl Fn(&Rc<Card>) -> Result<T, StorageError>) -> Result<T, String> {
        if let Some(card) = &self.card {
            match act(card) {
                Err(StorageError::Card(_)) => self.card = None,
                done => return done.map_err(|error| error.to_string()),
            }
        }
        let card = Rc::new(card::mount(&self.handoff)?);
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
        console::interrupted()
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
            display: display::described(),
            card: self.card.as_ref().map(|volume| volume.device(card::described)),
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
        Some(interrupts::taken())
    }

    fn deaf_cores(&self) -> usize {
        TEAM.deaf()
    }

    fn prove_interrupts(&self) -> Option<usize> {
        TEAM.run(&|_| interrupts::prove());
        Some(TEAM.deaf())
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
        card::sd_host(&self.handoff).is_some()
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
        let port = match name {
            "pl011" | "auto" => Port::Pl011,
            "mini-uart" | "mini" => Port::Mini,
            "rp1" => Port::Header,
            _ => return Err(String::from("The consoles are pl011, mini-uart and rp1.")),
        };
        if port == Port::Mini && devices().is_none_or(|devices| devices.mini_uart.is_none()) {
            return Err(String::from("This board has no mini-UART: the console is the pl011."));
        }
        if port == Port::Header && header_uart().is_none() {
            return Err(String::from(NO_HEADER_UART));
        }
        if !is_console(port) {
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
pub fn report(handoff: &Handoff, layout: &Layout, here: &[bool], begun: &Begun) {
    let say = |text: String| Line.write(text.as_bytes());
    if Port::asked_for(handoff) == Port::Header && header_uart().is_none() {
        say(format!("{NO_HEADER_UART}\r\n"));
    }
    for (core, _) in here.iter().enumerate().take(begun.cores).filter(|(_, here)| !**here) {
        let why = begun.refused.get(core).copied().flatten();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        say(format!("Core {core} did not start{why}: going on with {}.\r\n", TEAM.width()));
    }
    let (deaf, cores) = (TEAM.deaf(), TEAM.width());
    if deaf > 0 {
        say(format!("{}\r\n", NoInterrupts { deaf, cores }));
    }
    if layout.left_out > 0 {
        let (all, left_out) = (Mib(handoff.ram()), Mib(layout.left_out));
        say(format!(
            "Of {all} RAM {left_out} are not used: they lie above the first 256 GiB of addresses.\r\n"
        ));
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
