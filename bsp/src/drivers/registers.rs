//! The cells that register blocks are made of: tock-registers' own. On a PC each access asks the machine in place first
//! ([`crate::machine`]), and is one to plain memory if that has no such register.

#[cfg(target_os = "none")]
pub use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};

#[cfg(not(target_os = "none"))]
pub use on_a_pc::{ReadOnly, ReadWrite, WriteOnly};

#[cfg(not(target_os = "none"))]
mod on_a_pc {
    use tock_registers::interfaces::{Readable, Writeable};
    use tock_registers::{RegisterLongName, UIntLike, registers};

    use crate::machine;

    macro_rules! cell {
        ($name:ident, $what:literal) => {
            #[doc = $what]
            #[repr(transparent)]
            pub struct $name<T: UIntLike, R: RegisterLongName = ()>(registers::$name<T, R>);
        };
    }
    macro_rules! readable {
        ($name:ident) => {
            impl<R: RegisterLongName> Readable for $name<u32, R> {
                type T = u32;
                type R = R;

                fn get(&self) -> u32 {
                    let address = core::ptr::from_ref(self) as usize;
                    machine::here().load(address, 4).map_or_else(|| self.0.get(), |word| word as u32)
                }
            }
        };
    }
    macro_rules! writeable {
        ($name:ident) => {
            impl<R: RegisterLongName> Writeable for $name<u32, R> {
                type T = u32;
                type R = R;

                fn set(&self, value: u32) {
                    let address = core::ptr::from_ref(self) as usize;
                    if !machine::here().store(address, 4, u64::from(value)) {
                        self.0.set(value);
                    }
                }
            }
        };
    }
    cell!(ReadOnly, "A register that is read.");
    cell!(WriteOnly, "A register that is written.");
    cell!(ReadWrite, "A register that is read and written.");
    readable!(ReadOnly);
    readable!(ReadWrite);
    writeable!(WriteOnly);
    writeable!(ReadWrite);
}
