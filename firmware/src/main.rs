//! kernel8.img: the board and the engine joined. Five stages, each needing what the one before it returned.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod copies;
#[cfg(target_os = "none")]
mod lamp;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod pool;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: embodios_firmware::memory::Allocator = embodios_firmware::memory::Allocator::new();

/// Core 0, from the first line of Rust on.
#[cfg(target_os = "none")]
fn start(entry: boot::Entry) -> ! {
    use embodios_bsp::{board::Board, cpu};
    use embodios_firmware::Platform;

    // 1. What the boot loader says, and faults that can be told.
    cpu::exception::install(platform::interrupt, panic::fault);
    let (mut handoff, tree) = boot::read_handoff(entry.x0);
    handoff.initrd = handoff.initrd.or_else(boot::embedded);
    let board = Board::detect(handoff.compatible.iter().map(|name| name.as_str()), cpu::part());
    let firmware = board.firmware(&handoff, entry.level);
    let release = board.release(&handoff, firmware);
    platform::set_board(board, boot::devices(board), firmware);
    lamp::stage(1); // there is light
    platform::ask_for_memory(&mut handoff);
    panic::stop_after_fault(handoff.has_argument("onfault=stop"));
    platform::allow_semihosting(handoff.has_argument("semihosting"));
    lamp::obey_arguments(&handoff);
    let picture = platform::ask_for_picture(&mut handoff); // it has to be in the memory map

    // 2. Memory: everything in its place, with no more rights than it needs.
    lamp::stage(2);
    let lent = picture.as_ref().map(|picture| picture.memory.clone());
    let layout = boot::take_memory(&handoff, tree, lent, board, release, &HEAP)
        .unwrap_or_else(|error| panic!("{error}"));

    // 3. The console, and full speed.
    lamp::stage(3);
    platform::open_screen(picture.as_ref().and_then(boot::surface));
    platform::start_interrupts();
    platform::choose_console(platform::Port::asked_for(&handoff)); // if not that, another: `report` says so
    platform::greet();
    cpu::unmask_interrupts();
    platform::raise_clocks();

    // 4. The other cores.
    lamp::stage(4);
    let begun = boot::release_cores(board, release);
    let here = platform::TEAM.gather(begun.cores, CORE_LIMIT, cpu::send_event);
    boot::close_page_zero();
    platform::report(&handoff, &layout, &here, &begun);

    // 5. The shell, until `off`.
    lamp::stage(5);
    let Some(mut machine) = platform::Machine::new(entry, handoff, layout) else { cpu::park() };
    embodios_firmware::run(&mut platform::Line, &mut machine);
    machine.power_off();
    cpu::park()
}

/// How long cores may take to come; only a board that lacks one waits so long. A parked core is there within
/// microseconds; an emulator on a busy host has been seen to need half a second.
#[cfg(target_os = "none")]
const CORE_LIMIT: core::time::Duration = core::time::Duration::from_secs(2);

/// The other cores.
#[cfg(target_os = "none")]
fn start_core(core: usize) -> ! {
    platform::start_core_interrupts();
    platform::TEAM.work(core)
}

/// On a PC this binary only says where to look.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("kernel8 runs on a Raspberry Pi: build it with `cargo embodi build`");
}
