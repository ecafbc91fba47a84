//! QEMU's monitor: commands to the emulator itself, over a socket.
//!
//! It is the one for people: it repeats what it was sent, answers in words, and shows `(qemu) ` when it is done.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;

/// How long the monitor may take for a command.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes what the emulated display shows to a file: PNG if its name ends so, else PPM.
pub fn screen_dump(socket: &Path, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    if name.contains(['"', '\\', '\n']) {
        bail!("QEMU takes no file name with quotes or backslashes: {name}");
    }
    let format = if file.extension().is_some_and(|extension| extension == "png") { "png" } else { "ppm" };
    let _ = std::fs::remove_file(file); // one of an earlier time is not taken for this one
    let answer = ask(socket, &format!("screendump \"{name}\" -f {format}"))?;
    if !file.is_file() {
        bail!("QEMU wrote no picture: {}", answer.trim());
    }
    Ok(())
}

/// Gives a command and returns what the monitor said.
pub fn ask(socket: &Path, command: &str) -> Result<String> {
    Monitor::connect(socket)?.ask(command)
}

/// A connection to the monitor. QEMU takes one at a time.
pub struct Monitor {
    #[cfg(unix)]
    stream: std::os::unix::net::UnixStream,
}

#[cfg(unix)]
impl Monitor {
    /// Connects. QEMU may only just have been started: it is given a while to make the socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let end = std::time::Instant::now() + LIMIT;
        while !socket.exists() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let stream = std::os::unix::net::UnixStream::connect(socket)
            .with_context(|| format!("QEMU's monitor at {} does not answer", socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self { stream };
        monitor.until_ready()?;
        Ok(monitor)
    }

    /// Gives a command and returns what the monitor said.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        use std::io::Write;
        self.stream.write_all(command.as_bytes())?;
        self.stream.write_all(b"\n")?;
        let said = self.until_ready()?;
        // The first line is the command as it was typed, each key drawn anew.
        let (_, answer) = said.split_once("\r\n").unwrap_or(("", &said));
        Ok(answer.trim_end_matches("(qemu) ").to_owned())
    }

    fn until_ready(&mut self) -> Result<String> {
        use std::io::Read;
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while !said.ends_with(b"(qemu) ") {
            match self.stream.read(&mut buffer).context("QEMU's monitor fell silent")? {
                0 => bail!("QEMU's monitor closed"),
                count => said.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

#[cfg(not(unix))]
impl Monitor {
    /// There are no sockets of this kind here.
    pub fn connect(_: &Path) -> Result<Self> {
        let _ = LIMIT;
        bail!("QEMU's monitor is reached through a Unix socket: run this on Linux, macOS or in WSL")
    }

    /// Nothing is ever connected.
    pub fn ask(&mut self, _: &str) -> Result<String> {
        bail!("QEMU's monitor is reached through a Unix socket: run this on Linux, macOS or in WSL")
    }
}
