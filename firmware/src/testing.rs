//! For tests: a terminal that plays a script and shows a screen, and a board without hardware.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use embodios::source::InPlace;
use embodios::{Alone, ByteSource, Pool, ReadError};
use unicode_width::UnicodeWidthChar;

use crate::light::Signal;
use crate::{CoreReport, FileEntry, Interrupts, Platform, Region, Stack, Status, Terminal};

/// A terminal that types its script and remembers what it was sent. Clones are the same terminal.
#[derive(Clone, Default)]
pub struct ScriptedTerminal(Rc<RefCell<Script>>);

#[derive(Default)]
struct Script {
    /// `None` is a pause: one read that finds nothing.
    input: VecDeque<Option<u8>>,
    output: Vec<u8>,
    lost: u64,
    waits: u32,
}

impl ScriptedTerminal {
    pub fn new(script: impl AsRef<[u8]>) -> Self {
        let terminal = Self::default();
        terminal.types(script);
        terminal
    }
    pub fn types(&self, script: impl AsRef<[u8]>) {
        self.0.borrow_mut().input.extend(script.as_ref().iter().copied().map(Some));
    }
    /// The user stops for a moment: the board finds nothing to read this many times.
    pub fn pauses(&self, times: usize) {
        self.0.borrow_mut().input.extend((0..times).map(|_| None));
    }
    pub fn loses(&self, bytes: u64) {
        self.0.borrow_mut().lost = bytes;
    }
    pub fn is_done(&self) -> bool {
        self.0.borrow().input.is_empty()
    }
    /// Everything sent so far, as bytes.
    pub fn sent(&self) -> Vec<u8> {
        self.0.borrow().output.clone()
    }
    /// Everything sent so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.sent()).expect("only UTF-8 is sent")
    }
    /// What a terminal this wide shows, row by row.
    pub fn screen(&self, width: usize) -> Vec<String> {
        screen(&self.text(), width).0
    }
    /// Row and column of its cursor.
    pub fn cursor(&self, width: usize) -> (usize, usize) {
        screen(&self.text(), width).1
    }
}

impl Terminal for ScriptedTerminal {
    fn read(&mut self) -> Option<u8> {
        self.0.borrow_mut().input.pop_front().flatten()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.borrow_mut().output.extend_from_slice(bytes);
    }
    fn wait(&mut self) {
        let mut script = self.0.borrow_mut();
        if script.input.is_empty() {
            script.waits += 1;
            assert!(
                script.waits < 1000,
                "waits for input that never comes, after: {}",
                String::from_utf8_lossy(&script.output)
            );
        }
    }
    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().lost)
    }
}

/// The least a terminal can do; anything beyond that fails the test.
fn screen(text: &str, width: usize) -> (Vec<String>, (usize, usize)) {
    const WIDE: char = '\0'; // second half of a wide character
    let mut rows: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x08' => column = column.min(width - 1).saturating_sub(1),
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "only CSI sequences");
                let mut number = String::new();
                let last = loop {
                    match chars.next().expect("a whole sequence") {
                        digit @ ('0'..='9' | ';' | '?') => number.push(digit),
                        last => break last,
                    }
                };
                let count = number.parse().unwrap_or(1);
                match last {
                    'C' => column = (column + count).min(width - 1),
                    'D' => column = column.min(width - 1).saturating_sub(count),
                    'K' if number.is_empty() => rows[row].truncate(column),
                    'H' if number.is_empty() => (row, column) = (0, 0),
                    'J' if number == "2" => rows = vec![Vec::new()],
                    'm' => {}
                    'h' | 'l' if number.starts_with('?') => {}
                    other => panic!("CSI {number}{other} is beyond a simple terminal"),
                }
            }
            c => {
                let wide = c.width().expect("no control characters");
                if column + wide > width {
                    (row, column) = (row + 1, 0);
                }
                rows.resize_with(rows.len().max(row + 1), Vec::new);
                let line = &mut rows[row];
                if line.len() < column + wide {
                    line.resize(column + wide, ' ');
                }
                match wide {
                    0 => continue,
                    _ => line[column] = c,
                }
                if wide == 2 {
                    line[column + 1] = WIDE;
                }
                column += wide;
            }
        }
        rows.resize_with(rows.len().max(row + 1), Vec::new);
    }
    let shown =
        |row: &Vec<char>| row.iter().filter(|&&c| c != WIDE).collect::<String>().trim_end().to_string();
    (rows.iter().map(shown).collect(), (row, column))
}

/// A board that exists only for a test: files are slices, a Ctrl-C comes when it is told to.
pub struct TestPlatform {
    pub files: Result<Vec<(&'static str, Vec<u8>)>, String>,
    pub preloaded: Option<Vec<u8>>,
    pub arguments: &'static str,
    pub memory_free: u64,
    /// The Ctrl-C comes when the engine has asked this often.
    pub interrupt_after: Cell<Option<u32>>,
    pub interrupted: Cell<bool>,
    /// What VideoCore says when it is asked, one after the other; the last again and again.
    pub throttled: RefCell<VecDeque<u32>>,
    /// Nanoseconds from one look at the clock to the next.
    pub tick: u64,
    /// What was asked of the board that has an effect.
    pub log: Vec<String>,
    /// What the card gives for byte 777; the opposite the next time.
    pub card_flaw: Cell<Option<u8>>,
    /// Whether interrupts reach its core.
    pub deaf: bool,
    /// What the light shows.
    pub signal: Cell<Signal>,
    clock: Cell<u64>,
}

impl TestPlatform {
    pub fn with_files(files: &[(&'static str, &[u8])]) -> Self {
        Self {
            files: Ok(files.iter().map(|&(name, bytes)| (name, bytes.to_vec())).collect()),
            preloaded: None,
            arguments: "",
            memory_free: 100_000_000,
            interrupt_after: Cell::new(None),
            interrupted: Cell::new(false),
            throttled: RefCell::default(),
            tick: 1_000_000,
            log: Vec::new(),
            card_flaw: Cell::default(),
            deaf: false,
            signal: Cell::default(),
            clock: Cell::new(0),
        }
    }
}

impl Platform for TestPlatform {
    fn pool(&self) -> &dyn Pool {
        &Alone
    }
    fn nanos(&self) -> u64 {
        self.clock.set(self.clock.get() + self.tick);
        self.clock.get()
    }
    fn boot_to_prompt_nanos(&self) -> u64 {
        234_000_000
    }
    fn random_seed(&self) -> u64 {
        7
    }
    fn interrupted(&self) -> bool {
        match self.interrupt_after.get() {
            Some(0) => {
                self.interrupt_after.set(None);
                self.interrupted.set(true);
            }
            Some(more) => self.interrupt_after.set(Some(more - 1)),
            None => {}
        }
        self.interrupted.get()
    }
    fn clear_interrupt(&self) {
        self.interrupted.set(false);
    }
    fn status(&self) -> Status {
        Status {
            board: "Test Board".into(),
            revision: Some(0xc0_3115),
            cores: 1,
            cpu: "Test CPU".into(),
            ram: 2_000_000_000,
            arm_hz: Some(1_500_000_000),
            arm_max_hz: Some(1_800_000_000),
            core_hz: None,
            temperature_milli: Some(48_250),
            throttled: Some(0x5_0000 | 1),
            display: Some("none: no display is plugged in".into()),
            card: Some("SDHC, 8000 MB".into()),
        }
    }
    fn throttled(&self) -> Option<u32> {
        let mut answers = self.throttled.borrow_mut();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
    }
    fn memory(&self) -> Vec<Region> {
        vec![Region { name: "kernel".into(), start: 0x8_0000, bytes: 2_000_000, used: 1_500_000 }]
    }
    fn memory_free(&self) -> u64 {
        self.memory_free
    }
    fn interrupts(&self) -> Option<Interrupts> {
        Some(Interrupts::default())
    }
    fn deaf_cores(&self) -> usize {
        self.deaf.into()
    }
    fn prove_interrupts(&self) -> Option<usize> {
        Some(self.deaf.into())
    }
    fn allocations(&self) -> Option<u64> {
        Some(12)
    }
    fn stacks(&self) -> Vec<Stack> {
        let stack =
            |core: u64| Stack { name: format!("core {core}"), bytes: 65_536, most: 5120 + core * 1024 };
        vec![stack(0), stack(1)]
    }
    fn heap(&self) -> Option<(u64, u64)> {
        Some((3_000_000, 4_000_000))
    }
    fn cores(&self) -> Vec<CoreReport> {
        vec![CoreReport { number: 0, kind: 0x1234, frequency: 1_000_000, nanos: self.nanos() }]
    }
    fn chip_micros(&self) -> Option<u64> {
        Some(self.nanos() / 1000)
    }
    fn firmware(&self) -> Option<u32> {
        Some(0x5_48e1)
    }
    fn read_card(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.files.as_ref().map_err(String::clone)?;
        let byte =
            |at: usize| self.card_flaw.get().map_or(at as u8, |flaw| if at == 777 { flaw } else { at as u8 });
        buffer.iter_mut().enumerate().for_each(|(at, to)| *to = byte(first as usize * 512 + at));
        self.card_flaw.set(self.card_flaw.get().map(|flaw| !flaw));
        Ok(())
    }
    fn files(&mut self) -> Result<Vec<FileEntry>, String> {
        let files = self.files.as_ref().map_err(String::clone)?;
        Ok(files
            .iter()
            .map(|(name, bytes)| FileEntry { name: (*name).into(), bytes: bytes.len() as u64 })
            .collect())
    }
    fn open(&mut self, name: &str) -> Result<Box<dyn ByteSource>, String> {
        let files = self.files.as_ref().map_err(String::clone)?;
        let (_, bytes) =
            files.iter().find(|file| file.0 == name).expect("only names that were listed are opened");
        Ok(Box::new(OnCard(bytes.clone())))
    }
    fn preloaded(&self) -> Option<&'static InPlace> {
        self.preloaded.clone().map(|bytes| &*Box::leak(Box::new(InPlace::new(bytes.leak()))))
    }
    fn arguments(&self) -> &str {
        self.arguments
    }
    fn signal(&self, signal: Signal) {
        self.signal.set(signal);
    }
    fn set_console(&mut self, name: &str) -> Result<(), String> {
        self.log.push(format!("console {name}"));
        if name == "rp1" { Err("This board has no such header.".into()) } else { Ok(()) }
    }
    fn set_prefetch(&mut self, distance: u8) -> Result<(), String> {
        self.log.push(format!("prefetch {distance}"));
        if distance == 3 { Err("this board goes no further".into()) } else { Ok(()) }
    }
    fn provoke(&mut self, kind: &str) -> Result<(), String> {
        // `fault ctrl-c N` in a script: the user presses it when the engine has asked N times.
        match kind.strip_prefix("ctrl-c ").and_then(|count| count.parse().ok()) {
            Some(count) => self.interrupt_after.set(Some(count)),
            None => return Err(format!("There is no fault `{kind}`.")),
        }
        Ok(())
    }
    fn exit(&mut self, code: u32) {
        self.log.push(format!("exit {code}"));
    }
    fn reboot(&mut self) {
        self.log.push("reboot".into());
    }
    fn power_off(&mut self) {
        self.log.push("off".into());
    }
}

/// A file's bytes, to be read piece by piece as from a card.
struct OnCard(Vec<u8>);

impl ByteSource for OnCard {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let past_end = ReadError::PastEnd { offset, wanted: buffer.len() as u64, len: self.len() };
        let from = self.0.get(offset as usize..).and_then(|from| from.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(past_end)?);
        Ok(())
    }
}
