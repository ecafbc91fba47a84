//! The last words: what happened, where, and what to try. Then the board restarts.
//!
//! Nothing here takes a lock or memory: it writes to the console's registers, whoever else may be doing so. The
//! first core that falls speaks; another that falls meanwhile keeps still; one that falls while it speaks
//! resets the board at once. With `onfault=stop` among the boot arguments the board stops instead; with `semihosting`
//! the emulator ends with code 1.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;

use embodios_bsp::cpu::exception::Frame;
use embodios_bsp::cpu::{self, timer};

use crate::{boot, lamp, platform};

/// Who speaks: core + 1.
static SPEAKER: AtomicUsize = AtomicUsize::new(0);
/// Stop rather than restart.
static STOP: AtomicBool = AtomicBool::new(false);

/// Says what happens after the last words.
pub fn stop_after_fault(stop: bool) {
    STOP.store(stop, Ordering::Relaxed);
}

/// The console's registers, as far as they take bytes.
struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let serial = platform::last_resort();
        for byte in text.bytes() {
            if byte == b'\n' {
                serial.write(b'\r');
            }
            serial.write(byte);
        }
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                platform::show(b"\r\n");
            }
            platform::show(line.as_bytes());
        }
        Ok(())
    }
}

/// Makes this core the one that speaks, or keeps it still for good.
fn speak() {
    let me = cpu::core() + 1;
    match SPEAKER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let _ = platform::guess_board();
        }
        Err(speaker) if speaker == me => {
            if !platform::guess_board() {
                cpu::park(); // it is no such board: there is nothing to speak with
            }
            let _ = Line.write_str("\nEXCEPTION while reporting one. Restarting.\n");
            restart();
        }
        Err(_) => cpu::park(),
    }
}

fn restart() -> ! {
    platform::last_resort().flush();
    platform::restart_board();
    timer::pause(Duration::from_secs(1));
    let _ = Line.write_str("The board did not restart: switch it off and on.\n");
    cpu::park()
}

fn finish() -> ! {
    // An emulator that runs tests learns of the fault by its exit code.
    platform::exit_emulator(1);
    if STOP.load(Ordering::Relaxed) {
        let _ =
            Line.write_str("Stopped, as the boot argument onfault=stop says: switch the board off and on.\n");
        platform::last_resort().flush();
        loop {
            lamp::last_words();
        }
    }
    let _ = Line.write_str("Restarting.\n");
    platform::last_resort().flush();
    lamp::last_words();
    restart()
}

/// Where an address of the image is in the ELF file, for `addr2line`.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match boot::image().linked(self.0) {
            Some(linked) => write!(f, "{:#x} ({linked:#x} in kernel8's ELF file)", self.0),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// Reports a fault.
pub fn fault(frame: &Frame) -> ! {
    speak();
    let cause = frame.cause();
    let overflow = cause.has_address() && boot::guard_pages().any(|page| page.contains(&frame.far));
    let line = &mut Line;
    let _ = write!(line, "\nEXCEPTION on core {} at EL{}: ", cpu::core(), cpu::exception_level());
    let _ = match overflow {
        true => writeln!(line, "stack overflow"),
        false => writeln!(line, "{cause}"),
    };
    if cause.has_address() {
        let _ = writeln!(line, "  address      {}", Place(frame.far));
    }
    let _ = writeln!(line, "  instruction  {}", Place(frame.elr));
    let _ = writeln!(line, "  called from  {}", Place(frame.x[30]));
    let _ = writeln!(line, "  ESR {:#010x}  SPSR {:#x}  SP {:#x}", frame.esr, frame.spsr, frame.sp);
    for (first, row) in frame.x.chunks(4).enumerate() {
        for (index, value) in row.iter().enumerate() {
            let _ = write!(line, "  x{:<2} {value:016x}", first * 4 + index);
        }
        let _ = writeln!(line);
    }
    let _ = writeln!(
        line,
        "Please report these lines, with what you did, as a bug of EMBODIOS {}.",
        platform::VERSION
    );
    finish()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _masked = cpu::Masked::new();
    speak();
    let line = &mut Line;
    let _ = writeln!(line, "\nPANIC on core {}: {}", cpu::core(), info.message());
    if let Some(at) = info.location() {
        let _ = writeln!(line, "  at {}:{}", at.file(), at.line());
    }
    let _ = writeln!(
        line,
        "Please report these lines, with what you did, as a bug of EMBODIOS {}.",
        platform::VERSION
    );
    finish()
}
