//! What llama.cpp ships to judge tokenizers and chat templates by: vocabulary-only GGUF files with recorded
//! tokens, and templates.
//!
//! They are in the source archive of the Python package `llama-cpp-python`. pip brings it from wherever pip is set up to
//! look; nothing of it is built or run, and only the files that tests read are kept.

use crate::{models, project};
use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The version that recorded data in `tests/data` come from as well.
const VERSION: &str = "0.3.36";
/// SHA-256 of the source archive.
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";
/// Where they lie in the archive.
const FOLDER: &str = "vendor/llama.cpp/models";

/// Where they are kept: `ggml-vocab-*.gguf`, `….gguf.inp`, `….gguf.out`, and `templates/*.jinja`.
pub fn path() -> PathBuf {
    models::cache().join(format!("llama-cpp-python-{VERSION}"))
}

/// Whether they are there. They were checked when they were put there, all at once.
pub fn is_here() -> bool {
    path().is_dir()
}

/// Brings them here.
pub fn fetch() -> Result<()> {
    let scratch = models::cache().join(format!(".reference-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("could not make {}", scratch.display()))?;
    let result = fetch_into(&scratch);
    // What is left is a download of no more use; that it can't be removed harms nobody.
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn fetch_into(scratch: &Path) -> Result<()> {
    eprintln!("fetching llama.cpp's vocabularies and templates (77 MB) with pip");
    // pip asks an archive's build program for its metadata even where it shall only download it. That would
    // install a CMake and run what was not checked yet; one that only knows the name stands in for it.
    let stand_in = scratch.join("stand-in/scikit_build_core");
    fs::create_dir_all(&stand_in)?;
    fs::write(stand_in.join("__init__.py"), "")?;
    fs::write(stand_in.join("build.py"), stand_in_for_the_build_program())?;
    let archives = scratch.join("archives");
    let mut pip = models::pip_download(&format!("llama-cpp-python=={VERSION}"), &archives)?;
    pip.args(["--no-binary=:all:", "--no-build-isolation"]).env("PYTHONPATH", scratch.join("stand-in"));
    models::run_pip(&mut pip)?;
    let archive = archives.join(format!("llama_cpp_python-{VERSION}.tar.gz"));
    let sum = models::sha256(&archive).context("pip left no source archive")?;
    ensure!(sum == SHA256, "the SHA-256 of the source archive is {sum}; {SHA256} was expected");

    let kept = scratch.join("kept");
    let count = unpack(&archive, &kept)?;
    ensure!(count > 0, "the source archive has no {FOLDER}");
    fs::rename(&kept, path()).with_context(|| format!("could not make {}", path().display()))
}

fn stand_in_for_the_build_program() -> String {
    format!(
        "import os\n\n\
         def prepare_metadata_for_build_wheel(directory, settings=None):\n    \
             name = 'llama_cpp_python-{VERSION}.dist-info'\n    \
             os.mkdir(os.path.join(directory, name))\n    \
             with open(os.path.join(directory, name, 'METADATA'), 'w') as file:\n        \
                 file.write('Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: {VERSION}\\n')\n    \
             return name\n\n\
         def build_wheel(*_, **__):\n    \
             raise NotImplementedError('only the source archive is wanted')\n"
    )
}

/// Unpacks the files that tests read, and says how many there were.
fn unpack(archive: &Path, into: &Path) -> Result<usize> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry.context("the source archive is damaged")?;
        let Some(place) = kept(&entry.path()?) else { continue };
        let place = into.join(place);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        std::io::copy(&mut entry, &mut File::create(&place)?)
            .with_context(|| format!("could not write {}", project::shown(&place)))?;
        count += 1;
    }
    Ok(count)
}

/// Where a file of the archive is kept, if it is: by its name alone or below `templates`, so that no name in an
/// archive leads out of the folder.
fn kept(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    parts.next()?; // llama_cpp_python-VERSION
    let inner = parts.as_path().strip_prefix(FOLDER).ok()?;
    let name = inner.file_name()?.to_str()?;
    let folder = inner.parent()?.to_str()?;
    match folder {
        "" if name.starts_with("ggml-vocab-") => Some(name.into()),
        "templates" if name.ends_with(".jinja") => Some(Path::new(folder).join(name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_archive_only_vocabularies_and_templates_are_kept_and_no_name_leads_out_of_the_folder() {
        let kept_as = |inner: &str| kept(&Path::new("llama_cpp_python-0.3.36").join(inner));
        let expected = |path: &str| Some(PathBuf::from(path));
        let models = "vendor/llama.cpp/models";
        assert_eq!(kept_as(&format!("{models}/ggml-vocab-a.gguf.inp")), expected("ggml-vocab-a.gguf.inp"));
        assert_eq!(kept_as(&format!("{models}/templates/a b.jinja")), expected("templates/a b.jinja"));
        for other in [
            "templates/README.md",
            ".editorconfig",
            "../ggml-vocab-x",
            "templates/../a.jinja",
            "",
            "x/ggml-vocab-a",
        ] {
            assert_eq!(kept_as(&format!("{models}/{other}")), None, "{other}");
        }
        assert_eq!(kept(Path::new("setup.py")), None);
        assert_eq!(kept(Path::new("/etc/passwd")), None);
    }
}
