//! `bench --emulate`: this tool, built for an Arm CPU and run by QEMU's user mode. It has neither a board's clock nor
//! its counters; what it shows is that the kernels of that CPU give the same bits as this PC, and how many jobs a
//! token takes. (A `qemu-aarch64` with plugins can count instructions between the marks, too.)

use super::{Args, Row, absolute};
use crate::project::{Toolchain, words};
use crate::setup::{self, Step};
use crate::{build, models};
use anyhow::{Context, Result, bail, ensure};
use std::process::{Command, Stdio};

/// A CPU that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cpu {
    /// A Raspberry Pi 4's: Advanced SIMD
    #[value(name = "cortex-a72")]
    CortexA72,
    /// A Raspberry Pi 5's: with dot products
    #[value(name = "cortex-a76")]
    CortexA76,
}

impl Cpu {
    fn name(self) -> &'static str {
        match self {
            Self::CortexA72 => "cortex-a72",
            Self::CortexA76 => "cortex-a76",
        }
    }
}

/// What the tool itself runs on.
pub fn this_cpu() -> &'static str {
    std::env::consts::ARCH
}

/// Tokens, if nothing was said: an emulated CPU takes about a second for each.
const LENGTHS: [usize; 2] = [8, 2];
const THREADS: [usize; 2] = [1, 2];

/// Builds, runs, and compares the digests with this PC's. Gives the CSV of the emulated CPU.
pub fn run(args: &Args, cpu: Cpu) -> Result<String> {
    setup::ensure(&[Step::TestTarget, Step::User])?;
    let model = absolute(&models::resolve(&args.model)?)?;
    let (toolchain, target) =
        Toolchain::for_tests().context("no Rust target for an Arm CPU: run `cargo embodi setup`")?;
    eprintln!("building this tool for {target}");
    let mut cargo = toolchain.cargo();
    if toolchain == Toolchain::Debian {
        let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        cargo.env(variable, "aarch64-linux-gnu-gcc");
    }
    cargo
        .args(["build", "--package", "embodi", "--bin", "embodi", "--profile", "tool", "--target", target])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("`{}` could not be started", words(&cargo)))?;
    ensure!(output.status.success(), "the tool did not build: see the compiler's messages above");
    let program = build::executable(&String::from_utf8_lossy(&output.stdout), "embodi")
        .context("cargo did not say where the program is")?;

    let list = |numbers: &[usize], default: usize| match numbers {
        [] => default.to_string(),
        numbers => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let csv = std::env::temp_dir().join(format!("embodi-bench-{}.csv", std::process::id()));
    let mut emulated = Command::new("qemu-aarch64");
    emulated
        .args(["-cpu", cpu.name()])
        .arg(program)
        .args(["bench", "--without-times", "--model"])
        .arg(&model);
    emulated.args(["--prompt", &list(&args.prompt, LENGTHS[0]), "--decode", &list(&args.decode, LENGTHS[1])]);
    let threads = if args.threads.is_empty() { &THREADS[..] } else { &args.threads };
    emulated.args(["--threads", &list(threads, 1)]).arg("--csv").arg(&csv);
    if let Some(level) = &args.level {
        emulated.args(["--level", level]);
    }
    eprintln!("running it as {}", cpu.name());
    let status = emulated.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("`{}` could not be started", words(&emulated)))?;
    ensure!(status.success(), "`{}` failed ({status})", words(&emulated));
    let text = std::fs::read_to_string(&csv).context("the emulated program left no CSV")?;
    // A file among the temporary ones harms nobody.
    let _ = std::fs::remove_file(&csv);

    eprintln!("running the same on this PC");
    let mut cases = Vec::new();
    for row in Row::all(&text)? {
        let case = [row.number("prompt")?, row.number("decode")?].map(Option::unwrap_or_default);
        if !cases.iter().any(|(known, _)| *known == case) {
            cases.push((case, row.get("digest")?));
        } else if cases
            .iter()
            .any(|(known, digest)| *known == case && *digest != row.get("digest").unwrap_or(""))
        {
            bail!("{} gives other bits with another number of threads", cpu.name());
        }
    }
    for ([prompt, decode], digest) in &cases {
        let ours = super::digest(&model, *prompt as usize, *decode as usize)?;
        ensure!(
            *digest == format!("{ours:016x}"),
            "{} gives the digest {digest} after {prompt} + {decode} tokens, this PC {ours:016x}: not the same bits",
            cpu.name()
        );
    }
    println!(
        "\n{} computes the same bits as this PC. An emulator's times mean nothing and are left out.",
        cpu.name()
    );
    Ok(text)
}
