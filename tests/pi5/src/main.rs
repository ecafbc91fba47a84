//! A Raspberry Pi 5, played on QEMU's `virt` machine with its kind of cores: a small hypervisor, for tests.
//!
//! QEMU has no such board. What the image meets on one is made of `virt`'s parts by a second stage of translation: RAM
//! from address 0 on, TF-A's part of it out of reach, the GIC at its 40-bit address; cores that count themselves in
//! affinity level 1 and are started by SMC. UART10, mailbox, watchdog and the stepping register are played by [`board`],
//! access by access, strictly: what a board would not forgive ends the run with a sentence.
//!
//! What differs from a board: the image is entered at EL1 (the hypervisor has EL2 to itself), and UART10's interrupt never
//! comes (that of `virt`'s UART has another number), so that the console is looked at instead.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(target_os = "none", allow(unsafe_code))] // a hypervisor's registers, tables and devices

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod entry;

/// On a PC this binary only says what it is for.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("pi5-model runs on QEMU's virt machine: `cargo embodi test boot raspberry_pi_5`");
}
