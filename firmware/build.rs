//! Hands the linker its script, and the source's commit to the banner.

use std::process::Command;

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=image.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{folder}/image.ld");
        // Constants that hold addresses are relocated by our own entry code and made read-only after that.
        println!("cargo:rustc-link-arg-bins=-znorelro");
        // `src/copies.rs` counts what they copy.
        println!("cargo:rustc-link-arg-bins=--wrap=memcpy");
        println!("cargo:rustc-link-arg-bins=--wrap=memmove");
    }

    // Not a checkout, or no git: the version alone has to do.
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(&folder).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        let head = std::path::Path::new(&folder).join(head);
        if head.exists() {
            println!("cargo:rerun-if-changed={}", head.display());
        }
    }
    let commit = git(&["rev-parse", "--short=9", "HEAD"]).unwrap_or_default();
    println!("cargo:rustc-env=EMBODIOS_COMMIT={commit}");
}
