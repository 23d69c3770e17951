//! Tells the crate its target triple, by which hosts name their executables.

fn main() {
    let triple = std::env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo:rustc-env=VIBEVOICE_TARGET={triple}");
    println!("cargo:rerun-if-changed=build.rs");
}
