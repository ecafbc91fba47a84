//! Entry at EL2, second-stage tables, traps, and the way down to EL1.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::board;

/// Where the guest's RAM begins in `virt`'s, and its size.
pub const RAM: u64 = 0x8000_0000;
const GIB: u64 = 1 << 30;
const RAM_GIB: u64 = 4;
/// What the loader has put in RAM: image and device tree, as the guest sees them.
const IMAGE: u64 = 0x8_0000;
const TREE: u64 = 0x2eff_0000;
/// A word outside the guest's RAM by which a test asks for another board: bit 0 hands no device tree over, bit 1 is
/// stepping C1, bit 2 plugs the cable into the header, bit 3 lets the boot loader close RP1, bit 4 has an older one that
/// gives it the other window, bit 5 has a load from a window in which RP1 is not raise an SError, too,
/// bit 6 leaves UART10 without divisors, and bit 7 tells of the light.
const WISHES: u64 = 0x7fff_0000;
/// TF-A's part of RAM: an access ends the run.
const MONITOR_END: u64 = 0x8_0000;

/// A page of descriptors.
#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }
    fn set(&self, slot: u64, entry: u64) {
        self.0[slot as usize].store(entry, Relaxed);
    }
    fn pointer(&self) -> u64 {
        self.0.as_ptr() as u64 | 3
    }
}

static FIRST: Table = Table::new();
/// The first GiB of RAM, and its first 2 MiB.
static LOW: Table = Table::new();
static LOWEST: Table = Table::new();
/// 0x10_4000_0000 and its last 2 MiB, in which the GIC is.
static HIGH: Table = Table::new();
static HIGHEST: Table = Table::new();

/// Stage 2: accessed, inner shareable, readable and writable, write-back memory.
const MEMORY: u64 = 1 | 1 << 10 | 3 << 8 | 3 << 6 | 0xf << 2;
/// The same for device registers, never executed.
const DEVICE: u64 = 1 | 1 << 10 | 3 << 6 | 1 << 54;
const PAGE: u64 = 2;

/// Where each core begins, as the guest asked for it, and with what.
static ENTRIES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static CONTEXTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

core::arch::global_asm!(
    r#"
    .section .head, "ax"
    .global _start
    _start:
        mov     x19, #0
        b       1f
    .global model_secondary
    model_secondary:
        mov     x19, x0                 // the firmware's context: the core's number
    1:  msr     daifset, #0xf
        mov     x0, #0x33ff             // floating point is not trapped
        msr     cptr_el2, x0
        isb
        adrp    x0, __stacks
        add     x0, x0, :lo12:__stacks
        add     x1, x19, #1
        add     x0, x0, x1, lsl #16
        mov     sp, x0
        adr     x0, model_vectors
        msr     vbar_el2, x0
        isb
        mov     x0, x19
        bl      model_start
        // x0: what the guest finds in x0
        mov     x1, xzr
        mov     x2, xzr
        mov     x3, xzr
        eret

    .balign 2048
    model_vectors:
        .rept 8
        .balign 128
        b       model_lost
        .endr
        .balign 128
        b       model_trap              // synchronous, from 64-bit EL1
        .rept 7
        .balign 128
        b       model_lost
        .endr

    model_trap:
        sub     sp, sp, #784
        stp     x0, x1, [sp, #0]
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        str     x30, [sp, #240]
        add     x1, sp, #256
        stp     q0, q1, [x1, #0]
        stp     q2, q3, [x1, #32]
        stp     q4, q5, [x1, #64]
        stp     q6, q7, [x1, #96]
        stp     q8, q9, [x1, #128]
        stp     q10, q11, [x1, #160]
        stp     q12, q13, [x1, #192]
        stp     q14, q15, [x1, #224]
        stp     q16, q17, [x1, #256]
        stp     q18, q19, [x1, #288]
        stp     q20, q21, [x1, #320]
        stp     q22, q23, [x1, #352]
        stp     q24, q25, [x1, #384]
        stp     q26, q27, [x1, #416]
        stp     q28, q29, [x1, #448]
        stp     q30, q31, [x1, #480]
        mov     x0, sp
        bl      model_trapped
        add     x1, sp, #256
        ldp     q0, q1, [x1, #0]
        ldp     q2, q3, [x1, #32]
        ldp     q4, q5, [x1, #64]
        ldp     q6, q7, [x1, #96]
        ldp     q8, q9, [x1, #128]
        ldp     q10, q11, [x1, #160]
        ldp     q12, q13, [x1, #192]
        ldp     q14, q15, [x1, #224]
        ldp     q16, q17, [x1, #256]
        ldp     q18, q19, [x1, #288]
        ldp     q20, q21, [x1, #320]
        ldp     q22, q23, [x1, #352]
        ldp     q24, q25, [x1, #384]
        ldp     q26, q27, [x1, #416]
        ldp     q28, q29, [x1, #448]
        ldp     q30, q31, [x1, #480]
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldp     x18, x19, [sp, #144]
        ldp     x20, x21, [sp, #160]
        ldp     x22, x23, [sp, #176]
        ldp     x24, x25, [sp, #192]
        ldp     x26, x27, [sp, #208]
        ldp     x28, x29, [sp, #224]
        ldr     x30, [sp, #240]
        ldp     x0, x1, [sp, #0]
        add     sp, sp, #784
        eret

    model_lost:
        mrs     x0, esr_el2
        mrs     x1, elr_el2
        bl      model_is_lost
    "#
);

unsafe extern "C" {
    fn model_secondary();
}

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a hypervisor's own control registers, set before its guest runs, or the guest's program counter.
        unsafe { core::arch::asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack)) }
    }};
}

/// What a test has asked for.
pub fn wishes() -> u32 {
    // SAFETY: RAM of `virt`'s that is neither ours nor the guest's.
    unsafe { (WISHES as *const u32).read_volatile() }
}

/// Second stage on, SMC trapped, EL1 is 64-bit; interrupts are the guest's, and so are system errors, as far as they are
/// [`raise_system_error`]'s.
const CONTROL: u64 = 1 | 1 << 1 | 1 << 5 | 1 << 19 | 1 << 31;

/// Has a system error pend at the guest, on the core that has trapped: HCR_EL2.VSE, which the guest's taking it clears.
pub fn raise_system_error() {
    write!("hcr_el2", CONTROL | 1 << 8);
}

/// The system timer's count: microseconds.
pub fn micros() -> u64 {
    read!("cntpct_el0") * 1_000_000 / read!("cntfrq_el0").max(1) // for three days
}

/// What the guest sees of memory: stage 2.
fn map() {
    FIRST.set(0, LOW.pointer());
    for gib in 1..RAM_GIB {
        FIRST.set(gib, (RAM + gib * GIB) | MEMORY);
    }
    LOW.set(0, LOWEST.pointer());
    for block in 1..512 {
        LOW.set(block, (RAM + (block << 21)) | MEMORY);
    }
    for page in MONITOR_END >> 12..512 {
        LOWEST.set(page, (RAM + (page << 12)) | MEMORY | PAGE);
    }
    // Distributor and CPU interface: 0x10_7fff_9000 and 0x10_7fff_a000.
    FIRST.set(0x10_7fff_9000 >> 30, HIGH.pointer());
    HIGH.set(511, HIGHEST.pointer());
    HIGHEST.set(0x1f9, 0x0800_0000 | DEVICE | PAGE);
    HIGHEST.set(0x1fa, 0x0801_0000 | DEVICE | PAGE);
}

/// Sets a core up and gives what its guest begins with in x0.
#[unsafe(no_mangle)]
extern "C" fn model_start(core: usize) -> u64 {
    if core == 0 {
        map();
        ENTRIES[0].store(IMAGE, Relaxed);
        CONTEXTS[0].store(if wishes() & 1 == 0 { TREE } else { 0 }, Relaxed);
    }
    // 39 bits of address from the first level on, 40 bits behind it, cached inner-shareable walks.
    write!("vtcr_el2", 25_u64 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 2 << 16 | 1 << 31);
    write!("vttbr_el2", FIRST.0.as_ptr() as u64);
    write!("hcr_el2", CONTROL);
    // The core says of itself what one of a BCM2712 says: multi-threaded, counted in affinity level 1.
    write!("vmpidr_el2", 0x8100_0000_u64 | (core as u64) << 8);
    write!("vpidr_el2", read!("midr_el1"));
    write!("cnthctl_el2", 3_u64);
    write!("cntvoff_el2", 0_u64);
    write!("mdcr_el2", read!("pmcr_el0") >> 11 & 0x1f);
    write!("sctlr_el1", 0x30d0_0800_u64);
    write!("spsr_el2", 0x3c5_u64);
    write!("elr_el2", ENTRIES[core].load(Relaxed));
    // SAFETY: the tables are complete, and no translation of this guest is in use yet.
    unsafe { core::arch::asm!("dsb sy", "tlbi vmalls12e1", "dsb sy", "isb", options(nostack)) };
    CONTEXTS[core].load(Relaxed)
}

/// A call of `virt`'s own firmware.
fn firmware(function: u64, first: u64, second: u64, third: u64) -> u64 {
    let mut result = function;
    // SAFETY: PSCI calls with the arguments that the specification has for them.
    unsafe {
        core::arch::asm!(
            "smc #0",
            inout("x0") result, inout("x1") first => _, inout("x2") second => _, inout("x3") third => _,
            lateout("x4") _, lateout("x5") _, lateout("x6") _, lateout("x7") _, lateout("x8") _, lateout("x9") _,
            lateout("x10") _, lateout("x11") _, lateout("x12") _, lateout("x13") _, lateout("x14") _,
            lateout("x15") _, lateout("x16") _, lateout("x17") _,
            options(nostack),
        );
    }
    result
}

/// Ends the run, or begins it again.
pub fn power_off() -> ! {
    firmware(0x8400_0008, 0, 0, 0);
    stop()
}

/// Begins it again.
pub fn reset() -> ! {
    firmware(0x8400_0009, 0, 0, 0);
    stop()
}

fn stop() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// PSCI as TF-A has it on a Raspberry Pi 5: cores by affinity, the number in level 1.
fn psci(x: &[u64]) -> u64 {
    const INVALID: u64 = -2_i64 as u64;
    match x[0] {
        0xc400_0003 => {
            let (target, entry, context) = (x[1], x[2], x[3]);
            if target & !0x300 != 0 || target == 0 {
                return INVALID;
            }
            if !(MONITOR_END..RAM_GIB * GIB).contains(&entry) {
                return -9_i64 as u64; // INVALID_ADDRESS
            }
            let core = target >> 8;
            ENTRIES[core as usize].store(entry, Relaxed);
            CONTEXTS[core as usize].store(context, Relaxed);
            firmware(0xc400_0003, core, model_secondary as *const () as u64, core)
        }
        0x8400_0008 | 0x8400_0009 => {
            board::check_card();
            if x[0] == 0x8400_0008 { power_off() } else { reset() }
        }
        _ => -1_i64 as u64, // NOT_SUPPORTED
    }
}

/// Refuses a guest whose map has a page of TF-A's memory: a guess of the core may read there, whatever the code does. One page
/// at each look, and the one next to the image.
fn check_map() {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    if read!("sctlr_el1") & 1 == 0 {
        return; // without a map a core does not guess
    }
    let before = read!("par_el1");
    for page in [LOOKS.fetch_add(1, Relaxed) % (MONITOR_END >> 12), (MONITOR_END >> 12) - 1] {
        let address = page << 12;
        // SAFETY: asks how the guest's own tables translate, which changes that register only.
        unsafe { core::arch::asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack)) };
        if read!("par_el1") & 1 == 0 {
            board::refuse("TF-A's memory is mapped", address);
        }
    }
    write!("par_el1", before);
}

/// What the guest did that is ours to do.
#[unsafe(no_mangle)]
extern "C" fn model_trapped(x: &mut [u64; 31]) {
    check_map();
    let esr = read!("esr_el2");
    match esr >> 26 & 0x3f {
        0x17 => x[0] = psci(x),
        0x24 => {
            let address = (read!("hpfar_el2") >> 4 << 12) | (read!("far_el2") & 0xfff);
            let (known, width, number) = (esr >> 24 & 1, esr >> 22 & 3, (esr >> 16 & 31) as usize);
            if known == 0 {
                board::refuse("an access that is no plain load or store of a register", address);
            }
            if width != 2 {
                board::refuse("a register is 32 bits wide, and this access is not", address);
            }
            let is_write = esr >> 6 & 1 == 1;
            if is_write {
                board::write(address, x.get(number).copied().unwrap_or(0) as u32);
            } else {
                let value = board::read(address);
                if let Some(register) = x.get_mut(number) {
                    *register = u64::from(value);
                }
            }
        }
        _ => board::refuse("a trap that nobody expected", esr),
    }
    let next = read!("elr_el2") + 4;
    write!("elr_el2", next);
}

#[unsafe(no_mangle)]
extern "C" fn model_is_lost(esr: u64, _elr: u64) -> ! {
    board::refuse("the model itself has failed", esr)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::refuse("the model itself has panicked", 0)
}
