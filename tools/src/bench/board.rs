//! `bench --machine`: the firmware's own bench in an emulated board.

use super::{Args, split_csv};
use crate::qemu::{Emulator, Machine};
use crate::setup::{self, Step};
use crate::{build, models};
use anyhow::{Result, ensure};
use std::time::Duration;

/// Loading a model is the longest: it is rearranged by one emulated core.
const BOOT: Duration = Duration::from_secs(300);
/// An emulated core decodes about a token a second.
const BENCH: Duration = Duration::from_secs(3600);
/// What such a board is asked if nothing was said: more would take too long.
const LENGTHS: [usize; 2] = [32, 8];

/// Boots the firmware with the model in memory and gives the CSV.
pub fn run(args: &Args, machine: Machine) -> Result<String> {
    ensure!(args.level.is_none(), "a board takes its level from the boot arguments: `run --append level=…`");
    setup::ensure(&[Step::BoardTarget, Step::System])?;
    let model = models::resolve(&args.model)?;
    eprintln!("building kernel8.img");
    let kernel = build::kernel()?;
    let mut board = Emulator::new(machine, &kernel.image).with_initrd(&model).start()?;
    board.prompt(BOOT)?;
    let list = |numbers: &[usize], default: usize| match numbers {
        [] => default.to_string(),
        numbers => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let mut command = format!("bench {} {}", list(&args.prompt, LENGTHS[0]), list(&args.decode, LENGTHS[1]));
    if !args.threads.is_empty() {
        command += &format!(" {}", list(&args.threads, 1));
    }
    eprintln!("the board has booted: {command}");
    let (text, csv) = split_csv(&board.ask(&command, BENCH)?)?;
    println!("{text}");
    println!(
        "\nTimes, cycles, sleeps and interrupts are the emulator's and say nothing about a board; barriers, \
         allocations and copies are a board's."
    );
    Ok(csv)
}
