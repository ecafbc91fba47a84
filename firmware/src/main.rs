//! kernel8.img
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// On a PC this binary only says where to look.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("kernel8 runs on a Raspberry Pi: build it with `cargo embodi build`");
}
