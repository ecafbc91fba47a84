//! Hands the linker its script.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=model.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{folder}/model.ld");
        // It is where it was linked for: what would be relocated holds its address from the start.
        println!("cargo:rustc-link-arg-bins=--apply-dynamic-relocs");
    }
}
