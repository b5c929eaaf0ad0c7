//! The schema is compiled in: a migration that is added has to cause a build.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
