//! Embeds the migrations anew when a file is added to the folder: without this a new migration
//! outside the package is not picked up and tests run against the old schema.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
