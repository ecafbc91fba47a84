//! QEMU: start the image, type at its serial line, wait for words. `run --script` and the whole-system tests
//! drive it through here.

pub mod monitor;
mod screen;

use crate::project::answers;
use anyhow::{Context, Result};
use screen::Screen;
use std::fmt;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-aarch64";
/// What the shell prints when it waits for a line.
pub const PROMPT: &str = "> ";
/// Words at the start of a line by which the kernel says that it has crashed.
const FAULTS: [&str; 2] = ["EXCEPTION", "PANIC"];
/// The prompt must have stood for this long: an answer might begin with the same characters.
const SETTLED: Duration = Duration::from_millis(60);

/// Whether a QEMU with the machine raspi4b is installed (version 9 brought it).
pub fn has_raspi4b() -> bool {
    let output = Command::new(QEMU).args(["-M", "help"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("raspi4b"))
        && answers(QEMU, &["--version"])
}

/// What QEMU emulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// A Raspberry Pi 4: Cortex-A72, 2 GiB
    #[default]
    #[value(alias = "pi4")]
    Raspi4b,
    /// No board there is, but a Raspberry Pi 5's processor: Cortex-A76, 2 GiB, an SD host that reads by DMA
    Virt,
}

impl Machine {
    /// The words that name it on QEMU's command line.
    fn words(self) -> impl Iterator<Item = &'static str> {
        let words = match self {
            Self::Raspi4b => "-M raspi4b",
            // The network card it would have needs a ROM file that not every installation has.
            Self::Virt => "-M virt,gic-version=2 -cpu cortex-a76 -smp 4 -nic none",
        };
        words.split(' ')
    }
}

/// What an emulated board is started with.
#[derive(Clone, Debug, Default)]
pub struct Emulator {
    /// What it is.
    pub machine: Machine,
    /// kernel8.img; an empty path where `extra` has other code begin.
    pub kernel: PathBuf,
    /// The card in EMMC2's slot, or in that of an SD host on PCI.
    pub card: Option<PathBuf>,
    /// A model that the boot loader puts in memory.
    pub initrd: Option<PathBuf>,
    /// Boot arguments.
    pub arguments: String,
    /// RAM, as QEMU counts it; without it 2 GiB.
    pub memory: Option<String>,
    /// Where QEMU listens for commands to itself: [`monitor`] gives them.
    pub monitor: Option<PathBuf>,
    /// More words for QEMU's command line.
    pub extra: Vec<String>,
}

impl Emulator {
    /// A board with this kernel and no card.
    pub fn new(machine: Machine, kernel: &Path) -> Self {
        Self { machine, kernel: kernel.to_path_buf(), ..Self::default() }
    }

    /// With this card in the slot.
    pub fn with_card(mut self, card: &Path) -> Self {
        self.card = Some(card.to_path_buf());
        self
    }

    /// With its monitor at this socket, which QEMU makes.
    pub fn with_monitor(mut self, socket: &Path) -> Self {
        self.monitor = Some(socket.to_path_buf());
        self
    }

    /// With these boot arguments.
    pub fn with_arguments(mut self, arguments: &str) -> Self {
        self.arguments = arguments.to_owned();
        self
    }

    /// With so much RAM, where the machine can have another size: "6G".
    pub fn with_memory(mut self, size: &str) -> Self {
        self.memory = Some(size.to_owned());
        self
    }

    /// With these words on QEMU's command line.
    pub fn with_extra(mut self, words: &[&str]) -> Self {
        self.extra.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With time that is counted in instructions, one a nanosecond: the event counter of instructions is exact
    /// then (and only then there), all cores share one thread of this PC, and times say nothing.
    pub fn counting_instructions(self) -> Self {
        self.with_extra(&["-icount", "shift=0"])
    }

    /// With this file in memory.
    pub fn with_initrd(mut self, file: &Path) -> Self {
        self.initrd = Some(file.to_path_buf());
        self
    }

    fn has_argument(&self, wanted: &str) -> bool {
        self.arguments.split_whitespace().any(|argument| argument == wanted)
    }

    /// The command line, the console connected to the character device `serial` ("stdio").
    pub fn command(&self, serial: &str) -> Command {
        let mut command = Command::new(QEMU);
        command.args(self.machine.words()).args(["-display", "none"]);
        let monitor = match &self.monitor {
            // A comma in a file name is doubled.
            Some(socket) => {
                format!("unix:{},server=on,wait=off", socket.display().to_string().replace(',', ",,"))
            }
            None => "none".to_owned(),
        };
        command.args(["-monitor", &monitor]);
        command.arg("-m").arg(self.memory.as_deref().unwrap_or("2G"));
        if !self.kernel.as_os_str().is_empty() {
            command.arg("-kernel").arg(&self.kernel);
        }
        // The first -serial is the PL011, a Raspberry Pi's second the mini-UART.
        if self.machine == Machine::Raspi4b && self.has_argument("console=mini") {
            command.args(["-serial", "null"]);
        }
        command.args(["-serial", serial]);
        if let Some(card) = &self.card {
            // `if=sd` would be the old EMMC; a Pi 4 has its card slot on EMMC2. A comma in a file name is doubled.
            let file = card.display().to_string().replace(',', ",,");
            command.args(["-drive", &format!("if=none,id=card,format=raw,file={file}")]);
            match self.machine {
                Machine::Raspi4b => {
                    command.args(["-device", "sd-card,drive=card,bus=/generic-sdhci/sd-bus"]);
                }
                // What QEMU's controller says it can do, and bit 28, with which it reaches all memory.
                Machine::Virt => {
                    command.args(["-global", "sdhci-pci.capareg=0x157834b4"]);
                    command.args(["-device", "sdhci-pci,sd-spec-version=3", "-device", "sd-card,drive=card"]);
                }
            }
        }
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if !self.arguments.is_empty() {
            command.args(["-append", &self.arguments]);
        }
        if self.has_argument("semihosting") {
            command.args(["-semihosting-config", "enable=on,target=native"]);
        }
        command.args(&self.extra);
        command
    }

    /// Starts it with its console in our hands.
    pub fn start(&self) -> Result<Board> {
        let mut child = self
            .command("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{QEMU} could not be started: run `cargo embodi setup`"))?;
        let (mut stdin, mut stdout, mut stderr) = (
            child.stdin.take().context("QEMU has no input")?,
            child.stdout.take().context("QEMU has no output")?,
            child.stderr.take().context("QEMU has no error output")?,
        );
        let (to_reader, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if to_reader.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        // A thread of its own: QEMU holds a fast writer back, and we must go on reading then.
        let (input, from_writer) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for bytes in from_writer {
                if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
                    break;
                }
            }
        });
        let complaints = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&complaints);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                if let Ok(mut kept) = kept.lock() {
                    kept.push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            }
        });
        Ok(Board {
            child,
            input,
            output,
            complaints,
            screen: Screen::default(),
            mark: Mark::default(),
            typed_at: 0,
            changed: Instant::now(),
            echo: None,
        })
    }
}

/// A place in the transcript: a line, and bytes into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    line: usize,
    byte: usize,
}

/// A running board with its console in our hands. Dropping it ends QEMU.
pub struct Board {
    child: Child,
    input: Sender<Vec<u8>>,
    output: Receiver<Vec<u8>>,
    complaints: Arc<Mutex<String>>,
    screen: Screen,
    /// What was before has been dealt with.
    mark: Mark,
    /// Finished lines on the screen when a line was typed: the prompt is on a later one.
    typed_at: usize,
    changed: Instant,
    echo: Option<Echo>,
}

/// How what arrives is shown.
#[derive(Clone, Copy)]
enum Echo {
    /// As it arrives: a terminal knows what to do with it.
    Raw,
    /// As lines, once they are finished: a log keeps what stood there in the end. So many have been shown.
    Lines(usize),
}

/// Why what was waited for did not come.
#[derive(Debug)]
pub enum Failure {
    /// The kernel said that it crashed; its words.
    Fault(String),
    /// It did not come in time.
    TimedOut {
        /// What was waited for.
        wanted: String,
        /// How long.
        waited: Duration,
    },
    /// QEMU ended.
    Exited {
        /// What was waited for.
        wanted: String,
        /// QEMU's last words.
        complaints: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(words) => write!(f, "the kernel crashed: {words}"),
            Self::TimedOut { wanted, waited } => {
                write!(f, "{wanted} did not come within {} seconds", waited.as_secs())
            }
            Self::Exited { wanted, complaints } => {
                write!(f, "QEMU ended before {wanted} came")?;
                if complaints.is_empty() { Ok(()) } else { write!(f, ": {}", complaints.trim()) }
            }
        }
    }
}

impl std::error::Error for Failure {}

/// Whether this is the first line of a kernel's last words.
fn is_fault(line: &str) -> bool {
    FAULTS.iter().any(|word| line.starts_with(word))
}

impl Board {
    /// Shows everything that arrives on standard output.
    pub fn echo(mut self) -> Self {
        self.echo = Some(if std::io::stdout().is_terminal() { Echo::Raw } else { Echo::Lines(0) });
        self
    }

    /// Everything the board has printed, as a terminal would show it.
    pub fn transcript(&self) -> String {
        self.screen.text_from(0)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        // If QEMU has ended, the next wait says so.
        let _ = self.input.send(bytes.to_vec());
    }

    /// Types a line and Enter.
    pub fn type_line(&mut self, line: &str) {
        self.take_waiting();
        self.typed_at = self.screen.finished() + 1;
        self.send(line.as_bytes());
        self.send(b"\r");
    }

    /// Waits until the shell waits for a line, and gives what was printed since the last wait.
    pub fn prompt(&mut self, timeout: Duration) -> Result<String, Failure> {
        let typed_at = self.typed_at;
        let text = self.wait("the prompt", timeout, |board| {
            let screen = &board.screen;
            let last = screen.finished();
            let here = last >= typed_at && screen.current() == PROMPT && board.changed.elapsed() >= SETTLED;
            let place = Mark { line: last, byte: PROMPT.len() };
            // The same prompt does not count twice.
            (here && board.mark != place).then_some(place)
        })?;
        // After a crash the board may be at its prompt again before anyone looked.
        if let Some(fault) = text.lines().find(|line| is_fault(line)) {
            return Err(Failure::Fault(fault.trim().to_owned()));
        }
        Ok(text.strip_suffix(PROMPT).map(str::to_owned).unwrap_or(text))
    }

    /// Types a line, waits for the next prompt, and gives what was printed between them.
    pub fn ask(&mut self, line: &str, timeout: Duration) -> Result<String, Failure> {
        self.type_line(line);
        let text = self.prompt(timeout)?;
        // What was typed is echoed on the first line.
        let (_, answer) = text.split_once('\n').unwrap_or(("", &text));
        Ok(answer.to_owned())
    }

    /// Waits for words, and gives what was printed since the last wait up to and with them.
    pub fn expect(&mut self, words: &str, timeout: Duration) -> Result<String, Failure> {
        self.wait(&format!("\"{words}\""), timeout, |board| {
            board.screen.find(words, board.mark.line, board.mark.byte)
        })
    }

    /// Waits until what was printed since the last wait passes a test. It still counts as new afterwards.
    pub fn until(
        &mut self,
        wanted: &str,
        timeout: Duration,
        passes: impl Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        let wait = |board: &Self| {
            let last = board.screen.finished();
            let end = Mark { line: last, byte: board.screen.current().len() };
            passes(&board.screen.text_between(board.mark, end)).then_some(board.mark)
        };
        self.wait(wanted, timeout, wait).map(drop)
    }

    /// Waits for QEMU to end by itself.
    pub fn exit(&mut self, timeout: Duration) -> Result<ExitStatus, Failure> {
        let end = Instant::now() + timeout;
        loop {
            self.take_waiting();
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(Failure::TimedOut { wanted: "the end of QEMU".into(), waited: timeout });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `find` gives the end of what it looks for.
    fn wait(
        &mut self,
        wanted: &str,
        timeout: Duration,
        find: impl Fn(&Self) -> Option<Mark>,
    ) -> Result<String, Failure> {
        let end = Instant::now() + timeout;
        loop {
            self.take_waiting();
            // A fault's line may be half there: what is looked for may stand in the other half.
            let (found, fault) = match find(self) {
                Some(place) => (Some(place), None),
                None => match self.fault() {
                    Some(fault) => (find(self), Some(fault)),
                    None => (None, None),
                },
            };
            if let Some(place) = found {
                let text = self.screen.text_between(self.mark, place);
                self.mark = place;
                return Ok(text);
            }
            if let Some(fault) = fault {
                return Err(fault);
            }
            let now = Instant::now();
            if now > end {
                return Err(Failure::TimedOut { wanted: wanted.to_owned(), waited: timeout });
            }
            match self.output.recv_timeout(SETTLED.min(end - now)) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return match find(self) {
                        Some(_) => continue,
                        None => {
                            Err(Failure::Exited { wanted: wanted.to_owned(), complaints: self.complaints() })
                        }
                    };
                }
            }
        }
    }

    /// The kernel's last words, if it said some since the mark; waits for the rest of them.
    fn fault(&mut self) -> Option<Failure> {
        // A line on which something was already found has been seen by whoever looked for it.
        let first = if self.mark.byte == 0 { self.mark.line } else { self.mark.line + 1 };
        let at = (first..=self.screen.finished()).find(|&line| is_fault(self.screen.line(line)))?;
        let end = Instant::now() + Duration::from_millis(500);
        while let Ok(bytes) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.take(&bytes);
        }
        Some(Failure::Fault(self.screen.line(at).trim().to_owned()))
    }

    fn take_waiting(&mut self) {
        while let Ok(bytes) = self.output.try_recv() {
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.changed = Instant::now();
        self.screen.push(bytes);
        let mut out = std::io::stdout();
        // A reader of our output that went away is no reason to stop.
        let _ = match &mut self.echo {
            None => return,
            Some(Echo::Raw) => out.write_all(bytes),
            Some(Echo::Lines(shown)) => (std::mem::replace(shown, self.screen.finished())..*shown)
                .try_for_each(|number| writeln!(out, "{}", self.screen.line(number))),
        }
        .and_then(|()| out.flush());
    }

    fn complaints(&self) -> String {
        std::thread::sleep(Duration::from_millis(50)); // the thread that collects them may be behind
        self.complaints.lock().map(|kept| kept.clone()).unwrap_or_default()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // It may have ended already; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_on_emmc2_and_the_console_is_the_uart_that_the_arguments_name() {
        let words = |emulator: &Emulator| crate::project::words(&emulator.command("stdio"));
        let machine = Emulator::new(Machine::Raspi4b, Path::new("k.img")).with_card(Path::new("a,b.img"));
        let line = words(&machine);
        assert!(line.contains("file=a,,b.img") && line.contains("bus=/generic-sdhci/sd-bus"), "{line}");
        assert!(!line.contains("-serial null") && !line.contains("semihosting"), "{line}");
        let line = words(&machine.with_arguments("console=mini semihosting"));
        assert!(
            line.contains("-serial null -serial stdio") && line.contains("-semihosting-config"),
            "{line}"
        );
    }
}
