//! Where things are, and which cargo builds what.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What kernel8.img is compiled for.
pub const BOARD_TARGET: &str = "aarch64-unknown-none";
/// What the NEON tests are compiled for where rustup supplies the target: static, linked by `rust-lld`.
pub const TEST_TARGET: &str = "aarch64-unknown-linux-musl";
/// The same where Debian supplies it.
pub const DEBIAN_TEST_TARGET: &str = "aarch64-unknown-linux-gnu";

/// The root of the workspace: this package was compiled one folder below it.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Where cargo puts what it builds, and we our images.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir), // an absolute path replaces the root
        None => root().join("target"),
    }
}

/// `path` as seen from where the user stands, for messages.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// A Rust toolchain that has the standard libraries of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that runs this tool.
    Current,
    /// Debian's packages in /usr, the fall-back where rustup may not download a target.
    Debian,
}

impl Toolchain {
    /// The toolchain that can build for `target`, if one can.
    pub fn with_target(target: &str) -> Option<Self> {
        [Self::Current, Self::Debian].into_iter().find(|toolchain| toolchain.has_core(target))
    }

    /// The toolchain for kernel8.img; the error names the fix.
    pub fn for_board() -> Result<Self> {
        Self::with_target(BOARD_TARGET)
            .context("no Rust toolchain here builds for the board: run `cargo embodi setup`")
    }

    /// Toolchain and target for tests under user-mode emulation.
    pub fn for_tests() -> Option<(Self, &'static str)> {
        if Self::Current.has_core(TEST_TARGET) {
            return Some((Self::Current, TEST_TARGET));
        }
        Self::Debian.has_core(DEBIAN_TEST_TARGET).then_some((Self::Debian, DEBIAN_TEST_TARGET))
    }

    /// Whether `core` is installed for `target`.
    pub fn has_core(self, target: &str) -> bool {
        let Some(dir) = self.target_libraries(target) else { return false };
        let Ok(entries) = std::fs::read_dir(dir) else { return false };
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    }

    /// The folder in which this toolchain keeps its libraries for `target`.
    pub fn target_libraries(self, target: &str) -> Option<PathBuf> {
        let output = self
            .rustc()
            .args(["--print", "target-libdir", "--target", target])
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    }

    fn rustc(self) -> Command {
        match self {
            Self::Current => Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())),
            Self::Debian => Command::new("/usr/bin/rustc"),
        }
    }

    /// This toolchain's cargo, standing in the workspace root.
    pub fn cargo(self) -> Command {
        let mut command = match self {
            Self::Current => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian => {
                // Debian's cargo runs the first `rustc` on PATH: with rustup's proxies first that would be
                // rustup's, which can't read Debian's libraries.
                let mut command = Command::new("/usr/bin/cargo");
                let path = std::env::var_os("PATH").unwrap_or_default();
                let dirs = std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
                command.env("PATH", std::env::join_paths(dirs).unwrap_or_else(|_| "/usr/bin:/bin".into()));
                for name in ["RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"] {
                    command.env_remove(name);
                }
                command
            }
        };
        command.current_dir(root());
        command
    }
}

/// Whether a program answers at all when started with `arguments`.
pub fn answers<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Runs a command in the user's view; a failure is an error that quotes the command.
pub fn execute(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("`{}` could not be started", words(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", words(command));
    }
    Ok(())
}

/// A command as one would type it.
pub fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let all = std::iter::once(program).chain(command.get_args());
    all.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A folder of one's own that goes away again.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one among the system's temporary files.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("embodi-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)
            .with_context(|| format!("could not make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left among the temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
