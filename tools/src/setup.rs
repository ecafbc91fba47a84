//! `setup`: make a bare machine able to build and emulate.
//!
//! Each step says what it does, is skipped when there is nothing to do, and fails with a sentence that
//! names the fix. Programs are only installed by systems whose packages we know (Debian, Ubuntu); elsewhere
//! the sentence names the packages. No mirror is named here: Debian's own sources are where we look.

use crate::debian::{self, System};
use crate::image::boot_files;
use crate::project::{
    self, BOARD_TARGET, DEBIAN_TEST_TARGET, Scratch, TEST_TARGET, Toolchain, answers, execute,
};
use crate::{models, qemu, reference};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Make this machine able to build and emulate: Rust targets, QEMU, the default model.
///
/// Every step is skipped when there is nothing to do, so it can be run again at any time. `run` and `test`
/// do by themselves what they need of it. Installing packages needs root, or sudo without a password;
/// otherwise the commands are printed.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is there and what is missing
    #[arg(long)]
    check: bool,
}

/// Carries out `setup`.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        let mut missing = 0;
        for step in Step::ALL {
            let ready = step.is_done();
            missing += usize::from(!ready);
            println!("{:8} {}", if ready { "ready" } else { "missing" }, step.title());
        }
        if missing > 0 {
            bail!("{missing} of {} missing: run `cargo embodi setup`", Step::ALL.len());
        }
        return Ok(());
    }
    for step in Step::ALL {
        if step.is_done() {
            eprintln!("setup: {}: ready", step.title());
        } else if let Err(error) = step.carry_out() {
            if !step.is_optional() {
                return Err(error);
            }
            eprintln!("setup: going on although {error:#}");
        }
    }
    Ok(())
}

/// Carries out those of `steps` that are not done, without a word about the others.
pub fn ensure(steps: &[Step]) -> Result<()> {
    for step in steps.iter().filter(|step| !step.is_done()) {
        step.carry_out()?;
    }
    Ok(())
}

/// A thing that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rust's core library for the board.
    BoardTarget,
    /// Rust's standard library for tests under user-mode emulation.
    TestTarget,
    /// The emulated board.
    System,
    /// The emulated CPU, for tests.
    User,
    /// The default model.
    Model,
    /// Gemma 3 270M, whose own terms apply. Tests that need it are skipped without it.
    Gemma,
    /// What llama.cpp ships to judge tokenizers and templates by. Tests that need it are skipped without it.
    Reference,
    /// Raspberry Pi's boot files and device trees, for cards. Who has them otherwise names their folder.
    BootFiles,
    /// Other people's tools that look at a card image. Tests that need them are skipped without them.
    CardTools,
}

impl Step {
    /// In the order in which they are wanted.
    pub const ALL: [Self; 9] = [
        Self::BoardTarget,
        Self::TestTarget,
        Self::System,
        Self::User,
        Self::Model,
        Self::Gemma,
        Self::Reference,
        Self::BootFiles,
        Self::CardTools,
    ];

    fn title(self) -> String {
        match self {
            Self::BoardTarget => format!("Rust target {BOARD_TARGET} (kernel8.img)"),
            Self::TestTarget => format!("Rust target {TEST_TARGET} (NEON tests)"),
            Self::System => "QEMU with the machine raspi4b (version 9 or later)".into(),
            Self::User => "QEMU's user mode, qemu-aarch64 (NEON tests)".into(),
            Self::Model => format!("default model {}", models::DEFAULT),
            Self::Gemma => format!("model {} (tests; can be done without)", models::GEMMA),
            Self::Reference => "llama.cpp's vocabularies and templates (tests; can be done without)".into(),
            Self::BootFiles => "Raspberry Pi boot files and device trees (cards; can be done without)".into(),
            Self::CardTools => "dosfstools, mtools and fdisk (tests; can be done without)".into(),
        }
    }

    /// Whether everything but some tests can do without.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::Gemma | Self::Reference | Self::BootFiles | Self::CardTools)
    }

    /// Whether there is nothing to do.
    pub fn is_done(self) -> bool {
        match self {
            Self::BoardTarget => Toolchain::with_target(BOARD_TARGET).is_some(),
            Self::TestTarget => Toolchain::for_tests().is_some(),
            Self::System => qemu::has_raspi4b(),
            Self::User => answers("qemu-aarch64", &["--version"]),
            Self::Model => models::named(models::DEFAULT).is_ok_and(|model| model.is_here()),
            Self::Gemma => models::named(models::GEMMA).is_ok_and(|model| model.is_here()),
            Self::Reference => reference::is_here(),
            Self::BootFiles => boot_files::are_here(),
            Self::CardTools => {
                ["fsck.vfat", "mdir", "sfdisk"].into_iter().all(|tool| program(tool).is_some())
            }
        }
    }

    fn carry_out(self) -> Result<()> {
        eprintln!("setup: {}: missing, installing it", self.title());
        match self {
            Self::BoardTarget => board_target(),
            Self::TestTarget => test_target(),
            Self::System | Self::User => install_qemu(),
            Self::Model => models::named(models::DEFAULT)?.fetch().map(drop),
            Self::Gemma => models::named(models::GEMMA)?.fetch_for_tests().map(drop),
            Self::Reference => reference::fetch(),
            Self::BootFiles => boot_files::fetch(),
            Self::CardTools => install_from_debian(
                &["dosfstools", "mtools", "fdisk"],
                "install fsck.vfat, mdir and sfdisk from your system's packages (dosfstools, mtools, fdisk)",
            ),
        }
        .with_context(|| format!("set-up stopped at \"{}\"", self.title()))?;
        if !self.is_done() {
            bail!("\"{}\" is still missing after it was installed: see the messages above", self.title());
        }
        Ok(())
    }
}

fn board_target() -> Result<()> {
    if rustup(BOARD_TARGET) {
        return Ok(());
    }
    eprintln!("setup: rustup could not add it; trying Debian's own Rust");
    let packages = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22"];
    install_from_debian(
        &packages,
        "rustup could not add the target and this is not Debian: let rustup reach its server",
    )?;
    install_core_for_the_board()
}

fn test_target() -> Result<()> {
    if rustup(TEST_TARGET) {
        return Ok(());
    }
    eprintln!("setup: rustup could not add it; trying Debian's own Rust");
    let fix = "rustup could not add the target and this is not Debian: let rustup reach its server";
    let system = System::read();
    if system.id != "debian" {
        bail!("{fix}");
    }
    as_root(Command::new("dpkg").args(["--add-architecture", "arm64"]))?;
    let packages = [
        "rustc-web",
        "cargo-web",
        "gcc-aarch64-linux-gnu",
        "libc6-dev-arm64-cross",
        "libstd-rust-web-dev:arm64",
    ];
    install_from_debian(&packages, fix)?;
    if !Toolchain::Debian.has_core(DEBIAN_TEST_TARGET) {
        bail!("Debian's packages left no library for {DEBIAN_TEST_TARGET}");
    }
    Ok(())
}

/// Where a program is; those for file systems may be outside an ordinary user's PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Asks rustup for a target and says whether it came.
fn rustup(target: &str) -> bool {
    execute(Command::new("rustup").args(["target", "add", target])).is_ok()
        && Toolchain::Current.has_core(target)
}

/// Debian ships `core` for the board as source only: compile it once and put it where rustc looks.
fn install_core_for_the_board() -> Result<()> {
    eprintln!(
        "setup: compiling Rust's core library for {BOARD_TARGET} with Debian's compiler (half a minute)"
    );
    let scratch = Scratch::new()?;
    fs::create_dir_all(scratch.path().join("src"))?;
    fs::write(
        scratch.path().join("Cargo.toml"),
        "[package]\nname = \"core-for-the-board\"\nedition = \"2021\"\n",
    )?;
    fs::write(scratch.path().join("src/lib.rs"), "#![no_std]\nextern crate alloc;\n")?;
    execute(
        Toolchain::Debian
            .cargo()
            .current_dir(scratch.path())
            .args(["build", "--release", "-Zbuild-std=core,alloc", "--target", BOARD_TARGET])
            .env("CARGO_TARGET_DIR", scratch.path().join("target"))
            .env("RUSTC_BOOTSTRAP", "1") // Debian's compiler is a stable one; its core may be built all the same
            .env("RUSTFLAGS", "-Cembed-bitcode=yes"), // or link-time optimisation finds no bitcode
    )?;
    let built = scratch.path().join("target").join(BOARD_TARGET).join("release/deps");
    let place = Toolchain::Debian
        .target_libraries(BOARD_TARGET)
        .context("Debian's rustc does not know the target")?;
    as_root(Command::new("mkdir").arg("-p").arg(&place))?;
    for old in libraries(&place, "")? {
        as_root(Command::new("rm").arg(old))?; // two cores side by side would be an ambiguity
    }
    for name in ["core", "alloc", "compiler_builtins"] {
        for library in libraries(&built, name)? {
            as_root(Command::new("cp").arg(library).arg(&place))?;
        }
    }
    Ok(())
}

/// The rlibs of one crate, or of all, in a folder.
fn libraries(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let prefix = if name.is_empty() { "lib".to_owned() } else { format!("lib{name}-") };
    let entries = fs::read_dir(dir).with_context(|| format!("could not list {}", dir.display()))?;
    let is_one = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&prefix) && file.ends_with(".rlib")
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_one).collect())
}

fn install_qemu() -> Result<()> {
    const FIX: &str = "install QEMU 9 or later, with the machine raspi4b and the user mode";
    let system = System::read();
    let packages = ["qemu-system-arm", "qemu-user"];
    match system.id.as_str() {
        "debian" => match system.major() {
            Some(..12) => bail!("Debian {} has no QEMU with raspi4b: use Debian 12 or later", system.version),
            Some(12) => {
                add_backports(&system.codename)?;
                apt_install(&packages, Some(&format!("{}-backports", system.codename)))
            }
            _ => apt_install(&packages, None),
        },
        "ubuntu" if system.major().is_some_and(|major| major >= 25) => apt_install(&packages, None),
        "ubuntu" => {
            bail!("the QEMU of Ubuntu {} has no raspi4b: use Ubuntu 25.04 or later, or {FIX}", system.version)
        }
        "fedora" => bail!("{FIX}: `sudo dnf install qemu-system-aarch64-core qemu-user`"),
        "arch" => bail!("{FIX}: `sudo pacman -S qemu-system-aarch64 qemu-user`"),
        "macos" => bail!(
            "{FIX}: `brew install qemu` (it lacks the user mode, so the NEON tests need a Linux machine)"
        ),
        _ => bail!("{FIX}, from your system's packages"),
    }
}

fn install_from_debian(packages: &[&str], otherwise: &str) -> Result<()> {
    if System::read().id != "debian" {
        bail!("{otherwise}");
    }
    apt_install(packages, None)
}

fn apt_install(packages: &[&str], release: Option<&str>) -> Result<()> {
    // A broken third-party source fails the update but not what we are after: the install tells.
    if let Err(error) = as_root(Command::new("apt-get").args(["update", "-qq"])) {
        eprintln!("setup: going on although {error:#}");
    }
    let mut command = Command::new("apt-get");
    // Recommended packages would be 100 MB of graphics that a serial line has no use for.
    command.args(["install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]);
    if let Some(release) = release {
        command.args(["--target-release", release]);
    }
    as_root(command.args(packages)).context(
        "apt-get could not install it: check the network, and that the security and update suites of this \
         release are among apt's sources",
    )
}

/// Runs a command as root: directly, or through sudo if that asks nothing; else says what to type.
fn as_root(command: &mut Command) -> Result<()> {
    let mut full = match Root::find() {
        Root::Already => Command::new(command.get_program()),
        Root::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive"]).arg(command.get_program());
            sudo
        }
        Root::No => bail!("this needs root: run `sudo {}`, then this again", project::words(command)),
    };
    execute(full.args(command.get_args()).env("DEBIAN_FRONTEND", "noninteractive"))
}

enum Root {
    Already,
    Sudo,
    No,
}

impl Root {
    fn find() -> Self {
        let id = Command::new("id").arg("-u").output().map(|output| output.stdout).unwrap_or_default();
        if id.trim_ascii() == b"0" {
            Self::Already
        } else if answers("sudo", &["-n", "true"]) {
            Self::Sudo
        } else {
            Self::No
        }
    }
}

/// Lets apt see the backports of this release, from wherever the machine gets Debian already.
fn add_backports(codename: &str) -> Result<()> {
    let suite = format!("{codename}-backports");
    let sources = debian::apt_sources();
    if sources.iter().any(|(path, text)| debian::suites(path, text).contains(&suite)) {
        return Ok(());
    }
    let derived =
        |(path, text): &(PathBuf, String)| debian::derived_entry(path, text, codename, &suite, &["main"]);
    let Some((extension, entry)) = sources.iter().find_map(derived) else {
        bail!(
            "no Debian source for {codename} is among apt's, so there is nothing to derive {suite} from: add it by hand"
        );
    };
    let path = format!("/etc/apt/sources.list.d/embodios-{suite}.{extension}");
    eprintln!("setup: adding {suite}, from the machine's own Debian source, as {path}");
    match Root::find() {
        Root::Already => fs::write(&path, entry).with_context(|| format!("could not write {path}")),
        Root::Sudo => {
            let mut tee = Command::new("sudo")
                .args(["-n", "tee", &path])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .context("sudo could not be started")?;
            tee.stdin.take().context("no pipe to sudo")?.write_all(entry.as_bytes())?;
            if !tee.wait()?.success() {
                bail!("could not write {path}");
            }
            Ok(())
        }
        Root::No => bail!("this needs root: write the following into {path}, then run this again\n\n{entry}"),
    }
}
