//! Embeds every manifest of `config/vendors/`: a vendor is added by adding its file, without Rust.
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script its folders in the environment")]
fn main() {
    // Asked for when it runs, not when it is compiled: a build folder may be moved with its checkout.
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo sets `CARGO_MANIFEST_DIR`");
    let folder = Path::new(&package).join("../config/vendors");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("`config/vendors` can be read")
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".toml").map(str::to_owned)
        })
        .collect();
    names.sort();
    let mut source = String::from("pub(super) const MANIFESTS: &[(&str, &str)] = &[\n");
    for name in names {
        let file = folder.join(format!("{name}.toml"));
        let _ = writeln!(source, "    ({name:?}, include_str!({:?})),", file.display().to_string());
    }
    source.push_str("];\n");
    let out = env::var("OUT_DIR").expect("cargo sets `OUT_DIR`");
    fs::write(Path::new(&out).join("manifests.rs"), source).expect("the build folder can be written");
}
