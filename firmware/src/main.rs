//! kernel8.img: the board and the engine joined. Five stages, each needing what the one before it returned.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boot;
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
    use embodios_firmware::Terminal;
    embodios_bsp::cpu::exception::install(platform::interrupt, panic::fault);
    let (handoff, tree) = boot::read_handoff(entry.x0);
    let board = embodios_bsp::board::Board::detect(handoff.compatible.iter().map(|name| name.as_str()));
    platform::set_board(board, boot::devices(board));
    panic::stop_after_fault(handoff.has_argument("onfault=stop"));
    let layout = boot::take_memory(&handoff, tree, board, &HEAP);
    platform::start_interrupts();
    platform::choose_console(handoff.has_argument("console=mini"));
    embodios_bsp::cpu::unmask_interrupts();
    let cores = boot::release_cores(&handoff, board);
    let here =
        platform::TEAM.gather(cores, core::time::Duration::from_millis(500), embodios_bsp::cpu::send_event);
    boot::close_page_zero();
    let mut line = platform::Line;
    line.write(alloc::format!("{entry:x?} {here:?} {layout:x?} {handoff:x?}\r\n").as_bytes());
    loop {
        match line.read() {
            Some(byte) => line.write(&[byte]),
            None => line.wait(),
        }
    }
}

#[cfg(target_os = "none")]
extern crate alloc;

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
