//! Gives the shared library its SONAME, which cargo does not, and keeps it loaded after `dlclose`:
//! thread-local destructors of a library that has been unmapped would crash at thread exit.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnetshm.so.0");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
