//! Devices, each a register block and what it can do.

pub mod sd_card;
pub mod sdhci;

/// A device of 512-byte blocks.
pub trait BlockDevice {
    /// How many blocks it has.
    fn blocks(&self) -> u64;
    /// Fills `buffer`, a whole number of blocks, from block `first` on.
    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), sd_card::CardError>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for &mut T {
    fn blocks(&self) -> u64 {
        (**self).blocks()
    }
    fn read(&mut self, first: u64, buffer: &mut [u8]) -> Result<(), sd_card::CardError> {
        (**self).read(first, buffer)
    }
}
