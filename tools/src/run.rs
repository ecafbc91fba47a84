//! `run`: from nothing to a prompt in an emulated board.

use crate::image::Card;
use crate::qemu::{Emulator, Machine, monitor};
use crate::setup::{self, Step};
use crate::{build, models, project};
use anyhow::{Context, Result, bail, ensure};
use embodios::gguf::split::ShardName;
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Boot EMBODIOS in an emulated Raspberry Pi 4 and talk to it.
///
/// Sets up what is missing, builds kernel8.img and a card image with the model, starts QEMU and hands the
/// terminal over: Ctrl-C goes to the board; Ctrl-A then X ends QEMU.
///
/// With --script it needs no terminal and serves in CI: it fails if the kernel crashes, if QEMU ends early
/// or if a prompt does not come in time.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    #[arg(long, short, value_name = "NAME|PATH", default_value = models::DEFAULT)]
    model: String,
    /// The board that QEMU emulates
    #[arg(long, visible_alias = "machine", value_enum, default_value_t)]
    board: Machine,
    /// RAM of virt, as QEMU counts it: 6G. A Raspberry Pi 4 has 2G there, whatever is asked for
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Hand the model over in memory (initrd) instead of on the card: a second instead of half a minute
    #[arg(long)]
    preload: bool,
    /// Type the lines of this file at the prompt (`-`: standard input) and print the transcript
    ///
    /// Empty lines and lines that begin with # are left out.
    #[arg(long, value_name = "FILE|-")]
    script: Option<String>,
    /// With --script: write what the emulated display shows at the end to this file (.png or .ppm)
    #[arg(long, value_name = "FILE", requires = "script")]
    screen: Option<PathBuf>,
    /// With --script: how long each prompt may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Boot arguments, as in cmdline.txt ("console=mini", "semihosting")
    #[arg(long, value_name = "ARGUMENTS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Leave the card slot empty
    #[arg(long)]
    no_card: bool,
}

/// Carries out `run`.
pub fn run(args: &Args) -> Result<()> {
    let script = args.script.as_deref().map(read_script).transpose()?;
    if script.is_none() && !std::io::stdin().is_terminal() {
        bail!(
            "standard input is no terminal: give the lines to type with --script FILE, or --script - to read them here"
        );
    }
    if let (Some(size), Machine::Raspi4b) = (&args.memory, args.board) {
        bail!("QEMU's Raspberry Pi 4 always has 2 GiB: for {size}, take --board virt");
    }
    setup::ensure(&[Step::BoardTarget, Step::System])?;
    let (card, preload) = (!args.no_card, args.preload);
    let wants_model = preload || card;
    let model = if wants_model { Some(models::resolve(&args.model)?) } else { None };
    eprintln!("building kernel8.img");
    let kernel = build::kernel()?;
    eprintln!("{}: {}", project::shown(&kernel.image), kernel.sizes);

    let mut emulator = Emulator::new(args.board, &kernel.image).with_arguments(&args.append);
    if let Some(size) = &args.memory {
        emulator = emulator.with_memory(size);
    }
    // Of its own, so that two can run side by side; gone when QEMU is.
    let scratch = project::Scratch::new()?;
    if card {
        let mut card = Card::default().with_kernel(&kernel.image);
        if let (Some(model), false) = (&model, preload) {
            card = card.with_model(model)?;
        }
        let path = scratch.path().join("card.img");
        card.write(&path)?;
        emulator = emulator.with_card(&path);
    }
    if let (Some(model), true) = (&model, preload) {
        let name = model.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ensure!(
            ShardName::parse(name).is_none(),
            "a model in several files can't be handed over in memory: leave --preload away, or join them with llama.cpp's \
             `llama-gguf-split --merge`"
        );
        emulator = emulator.with_initrd(model);
    }
    if args.screen.is_some() {
        emulator = emulator.with_monitor(&scratch.path().join("monitor"));
    }
    match script {
        Some(lines) => follow(&emulator, &lines, Duration::from_secs(args.timeout), args.screen.as_deref()),
        None => hand_over(&emulator),
    }
}

fn read_script(file: &str) -> Result<Vec<String>> {
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().read_to_string(&mut text).context("could not read standard input")?;
    } else {
        text = fs::read_to_string(file).with_context(|| format!("could not read the script {file}"))?;
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// Types each line at the prompt and shows what comes; then writes down what the display shows.
fn follow(emulator: &Emulator, lines: &[String], timeout: Duration, screen: Option<&Path>) -> Result<()> {
    let mut board = emulator.start()?.echo();
    let result = (|| {
        board.prompt(timeout)?;
        for (number, line) in lines.iter().enumerate() {
            board.type_line(line);
            let is_last = number + 1 == lines.len();
            if is_last && line.trim().trim_start_matches('/') == "off" {
                board.exit(timeout)?;
            } else {
                board.prompt(timeout)?;
            }
        }
        match (screen, &emulator.monitor) {
            (Some(file), Some(socket)) => monitor::screen_dump(socket, &std::path::absolute(file)?),
            _ => Ok(()),
        }
    })();
    println!();
    result
}

/// Gives the terminal to QEMU until it ends.
fn hand_over(emulator: &Emulator) -> Result<()> {
    eprintln!("starting QEMU. Ctrl-C goes to the board; to leave: Ctrl-A, then X.\n");
    let terminal = Terminal::keep();
    let status = emulator.command("mon:stdio").status();
    drop(terminal);
    let status = status.context("qemu-system-aarch64 could not be started: run `cargo embodi setup`")?;
    if !status.success() {
        bail!("QEMU ended with an error ({status})");
    }
    Ok(())
}

/// The terminal's settings, put back at the end even if QEMU was killed before it could.
#[cfg(unix)]
struct Terminal(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Terminal {
    fn keep() -> Self {
        Self(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // Nothing is left to be done if the terminal has gone.
            let _ =
                rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, settings);
        }
    }
}

#[cfg(not(unix))]
struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    fn keep() -> Self {
        Self
    }
}
