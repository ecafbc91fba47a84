//! The image as a user meets it: booted in QEMU's raspi4b, driven over its serial line.
