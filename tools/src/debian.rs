//! Debian's archive, as far as this machine already knows it: its apt sources, sources derived from them, and single
//! files out of packages of another architecture, with neither root nor a trace in the system's own apt.
//!
//! No mirror is named here: the address, the key and the options are those of the machine's own source. apt checks
//! the archive's signature and each package's hash, as always.

use crate::project::{Scratch, answers};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What system this is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct System {
    /// "debian".
    pub id: String,
    /// "12".
    pub version: String,
    /// "bookworm".
    pub codename: String,
}

impl System {
    /// Asks the system.
    pub fn read() -> Self {
        if cfg!(target_os = "macos") {
            return Self { id: "macos".into(), ..Self::default() };
        }
        Self::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        Self { id: value("ID"), version: value("VERSION_ID"), codename: value("VERSION_CODENAME") }
    }

    /// The number before the first dot; testing has none.
    pub fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }
}

/// An apt of its own, which knows nothing but Debian for one other architecture.
pub struct Apt {
    folder: Scratch,
    options: Vec<OsString>,
}

impl Apt {
    /// Reads what there is for `architecture` in these components of this release and, on Debian 12, of its backports.
    pub fn new(architecture: &str, components: &[&str]) -> Result<Self> {
        let system = System::read();
        ensure!(system.id == "debian", "only Debian's packages have them, and this is not Debian");
        ensure!(answers("apt-get", &["--version"]), "apt-get does not work here");
        let codename = &system.codename;
        let mut suites = vec![codename.clone()];
        if system.major() == Some(12) {
            suites.push(format!("{codename}-backports")); // Debian 12's own kernel does not know a Raspberry Pi 5
        }
        let entry = apt_sources()
            .iter()
            .find_map(|(path, text)| derived_entry(path, text, codename, &suites.join(" "), components));
        let Some((extension, entry)) = entry else {
            bail!("no Debian source for {codename} is among apt's, so there is nothing to derive one from")
        };
        let folder = Scratch::new()?;
        let place = |name: &str| folder.path().join(name);
        let source = place(&format!("source.{extension}"));
        fs::write(&source, entry)?;
        fs::write(place("status"), "")?; // nothing is installed
        fs::create_dir_all(place("lists/partial"))?;
        fs::create_dir_all(place("cache/archives/partial"))?;
        let mut options = Vec::new();
        for (key, value) in [
            ("Dir::Etc::SourceList", source.as_os_str()),
            ("Dir::Etc::SourceParts", "-".as_ref()),
            ("Dir::State::Lists", place("lists").as_os_str()),
            ("Dir::State::Status", place("status").as_os_str()),
            ("Dir::Cache", place("cache").as_os_str()),
            ("APT::Architecture", architecture.as_ref()),
            ("APT::Architectures", architecture.as_ref()),
            ("APT::Sandbox::User", "root".as_ref()), // the folder is ours alone
            ("Acquire::Languages", "none".as_ref()),
            ("Acquire::Retries", "2".as_ref()),
            ("APT::Update::Error-Mode", "any".as_ref()), // a list that can't be had is no success
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".as_ref()),
        ] {
            let mut option = OsString::from(key);
            option.push("=");
            option.push(value);
            options.extend(["-o".into(), option]);
        }
        let apt = Self { folder, options };
        apt.get(&["update", "-qq"], apt.folder.path())
            .context("Debian's list of packages could not be had: check the network and apt's sources")?;
        Ok(apt)
    }

    /// Runs apt-get in this folder. What it says is seen; its many options are nothing for a message.
    fn get(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().context("apt-get could not be started")?;
        ensure!(status.success(), "`apt-get {}` failed ({status})", arguments.join(" "));
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The newest package that this one, which is empty itself, has ever depended on: the kernel's is called so.
    pub fn newest_dependency(&self, package: &str) -> Result<String> {
        let output = self.command("apt-cache").args(["show", package]).output()?;
        newest_dependency(&String::from_utf8_lossy(&output.stdout))
            .with_context(|| format!("the package {package} is not in the archive"))
    }

    /// Downloads a package.
    pub fn download(&self, package: &str) -> Result<Package> {
        let folder = self.folder.path().join("packages");
        fs::create_dir_all(&folder)?;
        self.get(&["download", "-q", package], &folder)
            .with_context(|| format!("the package {package} could not be had"))?;
        let is_it = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".deb"))
        };
        let mut files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let path = files.find(is_it).with_context(|| format!("apt-get left no file of {package}"))?;
        Ok(Package { path })
    }
}

/// A package as a file.
pub struct Package {
    path: PathBuf,
}

impl Package {
    /// Its name, version and architecture.
    pub fn title(&self) -> String {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy();
        name.replace('_', " ").replace("%3a", ":")
    }

    /// The files whose path `wanted` gives a name, by that name.
    pub fn unpack(&self, wanted: impl Fn(&Path) -> Option<String>) -> Result<Vec<(String, Vec<u8>)>> {
        let mut unpacker = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("dpkg-deb could not be started")?;
        let mut archive = tar::Archive::new(unpacker.stdout.take().context("dpkg-deb has no output")?);
        let mut files = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry
                .path()
                .ok()
                .filter(|_| entry.header().entry_type().is_file())
                .and_then(|path| wanted(&path));
            if let Some(name) = name {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                files.push((name, bytes));
            }
        }
        ensure!(unpacker.wait()?.success(), "dpkg-deb could not unpack {}", self.title());
        Ok(files)
    }
}

/// Of all `Depends` that are one package and its version, the package with the highest numbers in its name.
fn newest_dependency(stanzas: &str) -> Option<String> {
    let numbers = |name: &str| {
        let digits = name.split(|c: char| !c.is_ascii_digit());
        digits.filter_map(|digits| digits.parse().ok()).collect::<Vec<u64>>()
    };
    let depends = stanzas.lines().filter_map(|line| line.strip_prefix("Depends:"));
    let names = depends.filter_map(|words| words.split([',', '(', ' ']).find(|word| !word.is_empty()));
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// apt's source files and what is in them.
pub fn apt_sources() -> Vec<(PathBuf, String)> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        paths.extend(entries.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

fn is_deb822(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sources")
}

/// One `deb [options] address suite component…` line, taken apart.
struct OneLine<'a> {
    options: &'a str,
    address: &'a str,
    suite: &'a str,
    components: Vec<&'a str>,
}

impl<'a> OneLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.starts_with([' ', '\t']).then(|| rest.trim_start())?;
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let end = inner.find(']')?;
                (&rest[..end + 2], &inner[end + 1..])
            }
            None => ("", rest),
        };
        let mut words = rest.split('#').next()?.split_whitespace();
        Some(Self { options, address: words.next()?, suite: words.next()?, components: words.collect() })
    }
}

/// The fields of a deb822 paragraph; a field's further lines, which begin with a space, stay with it.
fn fields(paragraph: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn has_word(text: Option<&str>, word: &str) -> bool {
    text.is_some_and(|text| text.split_whitespace().any(|other| other == word))
}

/// Paragraphs of a deb822 file that are in force and give binary packages.
fn paragraphs(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        match (line.trim().is_empty(), all.last_mut()) {
            (false, Some(last)) => {
                last.push_str(line);
                last.push('\n');
            }
            _ => all.push(String::new()),
        }
    }
    let in_force = |fields: &Vec<(String, String)>| {
        has_word(field(fields, "Types"), "deb") && field(fields, "Enabled").is_none_or(|value| value != "no")
    };
    all.iter().map(|paragraph| fields(paragraph)).filter(in_force).collect()
}

/// The suites that a source file gives.
pub fn suites(path: &Path, text: &str) -> Vec<String> {
    if is_deb822(path) {
        let words = |paragraph: Vec<(String, String)>| {
            let words = field(&paragraph, "Suites").unwrap_or_default().split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        paragraphs(text).into_iter().flat_map(words).collect()
    } else {
        text.lines().filter_map(OneLine::parse).map(|line| line.suite.to_owned()).collect()
    }
}

/// The extension and content of a source file for other suites and components, derived from the entry for the release
/// itself: same address, same key, same options.
pub fn derived_entry(
    path: &Path,
    text: &str,
    codename: &str,
    suites: &str,
    components: &[&str],
) -> Option<(&'static str, String)> {
    let components = components.join(" ");
    if is_deb822(path) {
        let source = paragraphs(text).into_iter().find(|paragraph| {
            has_word(field(paragraph, "Suites"), codename) && has_word(field(paragraph, "Components"), "main")
        })?;
        let lines = source.iter().filter_map(|(name, value)| match name.to_ascii_lowercase().as_str() {
            "types" => Some("Types: deb\n".to_owned()),
            "suites" => Some(format!("Suites: {suites}\n")),
            "components" => Some(format!("Components: {components}\n")),
            "architectures" => None, // of the machine; whoever asks says which
            _ => Some(format!("{name}: {value}\n")),
        });
        return Some(("sources", lines.collect()));
    }
    let mut lines = text.lines().filter_map(OneLine::parse);
    let OneLine { options, address, .. } =
        lines.find(|line| line.suite == codename && line.components.contains(&"main"))?;
    let options = without_architecture(options);
    let space = if options.is_empty() { "" } else { " " };
    let line = |suite: &str| format!("deb {options}{space}{address} {suite} {components}\n");
    Some(("list", suites.split(' ').map(line).collect()))
}

/// `[arch=amd64 signed-by=…]` without the architecture.
fn without_architecture(options: &str) -> String {
    let inner = options.trim_start_matches('[').trim_end_matches(']');
    let kept: Vec<_> = inner.split_whitespace().filter(|option| !option.starts_with("arch=")).collect();
    if kept.is_empty() { String::new() } else { format!("[{}]", kept.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backports(path: &Path, text: &str) -> Option<(&'static str, String)> {
        derived_entry(path, text, "bookworm", "bookworm-backports", &["main"])
    }

    const DEB822: &str = "\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
";

    #[test]
    fn backports_come_from_the_address_and_the_key_of_a_deb822_source() {
        let (extension, entry) = backports(Path::new("debian.sources"), DEB822).unwrap();
        assert_eq!(extension, "sources");
        assert_eq!(
            entry,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian.gpg\n"
        );
        assert_eq!(suites(Path::new("x.sources"), &entry), ["bookworm-backports"]);
    }

    #[test]
    fn a_key_written_into_the_source_itself_stays_whole() {
        let text = "Types: deb\nURIs: http://m.example\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n";
        let (_, entry) = backports(Path::new("a.sources"), text).unwrap();
        assert!(entry.ends_with("Signed-By: \n -----BEGIN\n .\n abc\n"), "{entry}");
    }

    #[test]
    fn backports_come_from_a_one_line_source_with_its_options() {
        let text = "# deb http://old.example bookworm main\ndeb-src http://a.example bookworm main\n\
                    deb [signed-by=/k.gpg arch=amd64] http://m.example/debian bookworm main contrib # x\n";
        let (extension, entry) = backports(Path::new("/etc/apt/sources.list"), text).unwrap();
        assert_eq!(extension, "list");
        assert_eq!(entry, "deb [signed-by=/k.gpg] http://m.example/debian bookworm-backports main\n");
        let (_, entry) = backports(Path::new("a.list"), "deb http://m.example bookworm main").unwrap();
        assert_eq!(entry, "deb http://m.example bookworm-backports main\n");
    }

    #[test]
    fn sources_of_others_and_disabled_ones_are_not_taken() {
        for (path, text) in [
            ("a.list", "deb http://other.example stable main"),
            ("a.list", "deb http://m.example bookworm contrib"),
            (
                "a.sources",
                "Types: deb\nEnabled: no\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n",
            ),
            ("a.sources", "Types: deb-src\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n"),
            ("a.sources", ""),
        ] {
            assert_eq!(backports(Path::new(path), text), None, "{text}");
        }
    }

    #[test]
    fn the_system_is_read_from_os_release() {
        let system =
            System::parse("PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n");
        assert_eq!(
            (system.id.as_str(), system.major(), system.codename.as_str()),
            ("debian", Some(12), "bookworm")
        );
        let system = System::parse("ID=\"ubuntu\"\nVERSION_ID=\"25.04\"\n");
        assert_eq!((system.id.as_str(), system.major()), ("ubuntu", Some(25)));
        assert_eq!(System::parse("ID=debian\n").major(), None); // testing has no number
    }

    #[test]
    fn several_suites_and_components_come_from_either_kind_of_source() {
        let suites = "bookworm bookworm-backports";
        let entry = |path: &str, text: &str| {
            derived_entry(Path::new(path), text, "bookworm", suites, &["main", "non-free-firmware"])
                .unwrap()
                .1
        };
        assert_eq!(
            entry("a.list", "deb [arch=amd64] http://m.example bookworm main"),
            "deb http://m.example bookworm main non-free-firmware\n\
             deb http://m.example bookworm-backports main non-free-firmware\n"
        );
        let text =
            "Types: deb\nArchitectures: amd64\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            entry("a.sources", text),
            "Types: deb\nURIs: http://m.example\nSuites: bookworm bookworm-backports\n\
             Components: main non-free-firmware\n"
        );
    }

    #[test]
    fn the_newest_kernel_is_that_with_the_highest_numbers() {
        let stanzas = "Package: linux-image-arm64\nDepends: linux-image-6.1.0-50-arm64 (= 6.1.176-1)\n\n\
                       Package: linux-image-arm64\nDepends: linux-image-6.12.95+deb12-arm64 (= 6.12.95-1~bpo12+1)\n\n\
                       Depends: linux-image-6.9.7+bpo-arm64 (= 6.9.7-1)\n";
        assert_eq!(newest_dependency(stanzas).as_deref(), Some("linux-image-6.12.95+deb12-arm64"));
        assert_eq!(newest_dependency("N: Unable to locate package\n"), None);
    }
}
