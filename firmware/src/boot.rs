//! First instruction → Rust: exception level, memory map, relocation, stacks. On core 0, then on the others.
//!
//! What the entry code does, in order, with no store by Rust before the caches are on:
//! 1. Note the time. Whatever level the boot loader chose (EL2 on the boards, EL3 when an emulator loads the ELF
//!    file, EL1 under a hypervisor), go on at EL1 with floating point and NEON on.
//! 2. Build a first map with the MMU off: 2 MiB blocks for the image, page 0 of a Raspberry Pi 4 (tags and spin
//!    table) and the hand-over. Drop all cache lines that could hide it. MMU on. The devices come into it once the
//!    hand-over has told which board this is ([`devices`]).
//! 3. Relocate the image to where it is, zero what is to be zero, paint the stacks, call [`crate::start`].
//!
//! Sources: Linux "Booting AArch64 Linux" for the header and the state at entry; Arm DDI 0487 for the registers;
//! Cortex-A72 TRM 4.3.67 for CPUECTLR_EL1; `raspberrypi/tools` `armstub8.S` for what EL3 leaves to the levels below it; Arm
//! IHI 0048B, 4.3.4 and 4.4.1, for the interrupts' groups; BCM2711 ARM Peripherals, section 5, for the light's pin.
#![allow(unsafe_code)] // entry code, linker symbols, the hand-over's raw memory

use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use embodios::source::InPlace;
use embodios_bsp::board::{Begun, Board, Devices, HeaderUart, Release};
use embodios_bsp::cpu::mmu::{MapError, Tables};
use embodios_bsp::cpu::{self, CORES_MAX, mmu};
use embodios_bsp::drivers::framebuffer::{Depth, Framebuffer, Pixels, Surface};
use embodios_bsp::handoff::{self, Handoff};
use embodios_firmware::layout::{Image, LINK_ADDRESS, PAGE_ZERO, Plan};
use embodios_firmware::memory::{self, Ranges};
use spin::Once;

/// Bytes of one core's stacks, guard pages included: `image.ld` reserves as much.
const STACK_SLOT: u64 = 0x8_0000;
/// Within a slot: the fault stack lies above the first guard page …
const FAULT_STACK: Range<u64> = 0x1000..0x9000;
/// … and the stack above the second.
const STACK: Range<u64> = 0xa000..STACK_SLOT;
/// What an unused word of a stack holds.
const PAINT: u64 = 0x5354_4143_4b21_5354;

core::arch::global_asm!(
    r#"
    .macro ADDRESS register, symbol
        adrp    \register, \symbol
        add     \register, \register, :lo12:\symbol
    .endm

    .section .head, "ax"
    .global _start
    _start:
        b       begin                   // arm64 image header
        .long   0
        .quad   {link}                  // offset of the image from a 2 MiB border
        .quad   __image_size            // with everything that is not in the file
        .quad   0xa                     // little endian, 4 KiB pages, anywhere in memory
    .global embodios_embedded
    embodios_embedded:
        .quad   0                       // reserved; `cargo embodi build --embed`: bytes of the model behind the image
        .quad   0
        .quad   0
        .ascii  "ARM\x64"
        .long   0

    // ---- Core 0 -----------------------------------------------------------------------------------------
    begin:
        mrs     x27, cntpct_el0         // time of the first instruction
        mrs     x28, CurrentEL          // who may be below us hangs on it
        mrs     x1, mpidr_el1           // a boot loader may start all cores here: the others wait
        tst     x1, #0xffff
        b.ne    wait_for_core_0
        mov     x26, x0                 // hand-over: device tree, or something that is none
        msr     daifset, #0xf
        bl      to_el1

        // Lines that some boot loader left in the caches: of the image, write them back; of what is not in
        // the file, forget them.
        ADDRESS x0, __image_start
        ADDRESS x1, __zeroed_start
    1:  dc      civac, x0
        add     x0, x0, #64
        cmp     x0, x1
        b.lo    1b
        mov     x0, x1
        ADDRESS x1, __image_end
    1:  dc      ivac, x0
        add     x0, x0, #64
        cmp     x0, x1
        b.lo    1b
        dsb     sy

        // The first map: one table of 1 GiB entries, four of 2 MiB blocks for the first 4 GiB, one of pages for the
        // first block, which the image shares with a Raspberry Pi 5's secure monitor. Empty.
        ADDRESS x9, __early_tables
        mov     x0, x9
        add     x1, x9, #6 * 4096
    1:  stp     xzr, xzr, [x0], #16
        cmp     x0, x1
        b.lo    1b
        add     x10, x9, #4096          // x10: the tables of blocks, one long array
        orr     x0, x10, #3
        str     x0, [x9, #0]
        add     x0, x0, #4096
        str     x0, [x9, #8]
        add     x0, x0, #4096
        str     x0, [x9, #16]
        add     x0, x0, #4096
        str     x0, [x9, #24]
        add     x0, x0, #4096
        str     x0, [x10, #0]

        mov     x11, #0x701             // block, normal memory, inner shareable, accessed
        movk    x11, #0x40, lsl #48     // not for user code
        ADDRESS x0, __image_start
        ADDRESS x1, __image_end
        bl      map_early
        mov     x0, x26                 // a device tree is at most 2 MiB long
        cbz     x0, 1f
        add     x1, x0, #0x200000
        bl      map_early
    1:  mrs     x2, midr_el1
        ubfx    x2, x2, #4, #12
        mov     x3, #0xd08
        cmp     x2, x3
        b.ne    2f                      // not a Cortex-A72, so not a Raspberry Pi 4
        mov     x0, #0
        mov     x1, #0x1000
        bl      map_early
    2:
        mov     x0, x9                  // lines fetched meanwhile would hide the tables from the walker
        add     x1, x9, #6 * 4096
        dsb     sy
    1:  dc      ivac, x0
        add     x0, x0, #64
        cmp     x0, x1
        b.lo    1b
        dsb     sy

        mov     x0, x9
        mov     x1, #0x180d             // MMU, caches, stack alignment check …
        movk    x1, #0x30d0, lsl #16    // … and bits that must be one
        bl      mmu_on

        // Caches are on. Put the image's addresses right.
        ADDRESS x0, __relocations_start
        ADDRESS x1, __relocations_end
        ADDRESS x2, __image_start
        mov     x3, #{link}
        sub     x2, x2, x3              // how far from where it was linked for
    1:  cmp     x0, x1
        b.hs    2f
        ldp     x3, x4, [x0], #16       // where, what kind
        ldr     x5, [x0], #8            // address as linked
        cmp     w4, #1027               // R_AARCH64_RELATIVE
        b.ne    1b
        add     x5, x5, x2
        str     x5, [x2, x3]
        b       1b
    2:
        ADDRESS x0, __zeroed_start
        ADDRESS x1, __zeroed_end
    1:  cmp     x0, x1
        b.hs    2f
        stp     xzr, xzr, [x0], #16
        b       1b
    2:
        ADDRESS x0, __stacks_start
        ADDRESS x1, __image_end
        ldr     x2, ={paint}
    1:  stp     x2, x2, [x0], #16
        cmp     x0, x1
        b.lo    1b
        dsb     sy
        isb

        mov     x0, #0
        bl      own_stacks
        mov     x0, x26
        mov     x1, x27
        lsr     x2, x28, #2
        bl      embodios_start
        b       halt

    // ---- Cores 1 to 3 -----------------------------------------------------------------------------------
    wait_for_core_0:
        ADDRESS x2, {parameters}
    1:  ldr     x0, [x2, #16]           // caches are off: core 0 cleans it to memory
        cbnz    x0, embodios_core_entry
        wfe
        b       1b

    .global embodios_core_entry
    embodios_core_entry:
        msr     daifset, #0xf
        bl      to_el1
        mrs     x20, mpidr_el1
        ubfx    x0, x20, #24, #1        // multi-threaded: cores are counted in affinity level 1
        lsl     x0, x0, #3
        lsr     x20, x20, x0
        and     x20, x20, #0xff
        cmp     x20, #{cores}
        b.hs    halt
        ADDRESS x2, {parameters}        // core 0 has cleaned it to memory
        ldr     x0, [x2, #0]
        ldr     x1, [x2, #8]
        bl      mmu_on
        mov     x0, x20
        bl      own_stacks
        mov     x0, x20
        bl      embodios_core_start
    halt:
        wfi
        b       halt

    // ---- Common parts: no stack, no memory but what they are told ----------------------------------------

    // Maps from x0 to below x1 within the first 4 GiB, with the attributes in x11: pages in the first 2 MiB, then whole
    // blocks. Tables: x10.
    map_early:
        sub     x1, x1, #1
        add     x3, x10, #4 * 4096
    1:  lsr     x2, x0, #12
        cmp     x2, #512
        b.hs    2f
        cmp     x0, x1
        b.hi    4f
        lsl     x4, x2, #12
        orr     x4, x4, x11
        orr     x4, x4, #2              // a page
        str     x4, [x3, x2, lsl #3]
        add     x2, x2, #1
        lsl     x0, x2, #12
        b       1b
    2:  lsr     x0, x0, #21
        lsr     x1, x1, #21
    3:  cmp     x0, x1
        b.hi    4f
        cmp     x0, #2048
        b.hs    4f
        lsl     x2, x0, #21
        orr     x2, x2, x11
        str     x2, [x10, x0, lsl #3]
        add     x0, x0, #1
        b       3b
    4:  ret

    // Stack of core x0, its fault stack's top for the vectors, and the vectors.
    own_stacks:
        ADDRESS x1, __stacks_start
        mov     x2, #{slot}
        madd    x1, x0, x2, x1
        add     x2, x1, x2
        mov     sp, x2
        mov     x2, #{fault_top}
        add     x1, x1, x2
        msr     tpidr_el1, x1
        ADDRESS x1, embodios_vectors
        msr     vbar_el1, x1
        isb
        mov     x29, xzr
        ret

    // MMU on with the tables at x0 and SCTLR_EL1 = x1.
    mmu_on:
        ldr     x2, ={mair}
        msr     mair_el1, x2
        ldr     x2, =0x803519           // TCR: 39-bit addresses, cached inner-shareable walks, no upper half
        mrs     x3, id_aa64mmfr0_el1
        and     x3, x3, #0xf            // physical address size …
        mov     x4, #5
        cmp     x3, x4
        csel    x3, x3, x4, ls          // … at most 48 bits
        bfi     x2, x3, #32, #3
        msr     tcr_el1, x2
        msr     ttbr0_el1, x0
        isb
        tlbi    vmalle1
        ic      iallu
        dsb     nsh
        isb
        msr     sctlr_el1, x1
        isb
        ret

    // From any level to EL1, with floating point and NEON on. Uses x0 to x3; returns to x30.
    to_el1:
        ADDRESS x1, early_vectors
        mrs     x0, CurrentEL
        cmp     x0, #0xc
        b.lo    at_el2_or_below

        // EL3. Below: 64-bit, non-secure, HVC allowed, SMC undefined, as a Raspberry Pi's own stub has it.
        msr     vbar_el3, x1
        adr     x3, 1f
        b       join_coherency
    1:  mov     x0, #0x5b1
        msr     scr_el3, x0
        msr     cptr_el3, xzr
        msr     mdcr_el3, xzr           // the performance monitor is not trapped
        mov     x0, #0x73               // EL2 may write the core's own control registers
        msr     actlr_el3, x0
        mrs     x0, cntfrq_el0
        cbnz    x0, 2f
        ldr     x0, =54000000           // nobody has said it: the boards' crystal
        msr     cntfrq_el0, x0
    2:  ldr     x0, =0x30c50830
        msr     sctlr_el2, x0

        // Interrupts are the non-secure side's (group 1), as the stub leaves them. An emulator's GIC may have one
        // side only; where there is no GIC, early_vectors goes on at the label after.
        mrs     x0, midr_el1
        ubfx    x0, x0, #4, #12
        mov     x2, #0xd08
        ldr     x1, =0xff841000         // BCM2711
        cmp     x0, x2
        b.eq    interrupts_start
        mov     x2, #0xd0b
        ldr     x1, =0x107fff9000       // BCM2712
        cmp     x0, x2
        b.ne    interrupts_end
    interrupts_start:
        ldr     w2, [x1, #4]            // TYPER: lines / 32 - 1, and whether it has two sides
        tbz     w2, #10, interrupts_end
        and     w2, w2, #0x1f
        add     x0, x1, #0x80           // IGROUPR
        mov     w3, #-1
    1:  str     w3, [x0], #4
        subs    w2, w2, #1
        b.pl    1b
        add     x1, x1, #0x1000         // the CPU interface
        mov     w3, #0xff
        str     w3, [x1, #4]            // no priority is masked
        mov     w3, #0x1e7              // both groups on; none goes round the controller
        str     w3, [x1]
        dsb     sy
    interrupts_end:
        adr     x0, at_el2
        msr     elr_el3, x0
        mov     x0, #0x3c9              // EL2, own stack pointer, all masked
        msr     spsr_el3, x0
        eret

    at_el2_or_below:
        cmp     x0, #0x8
        b.lo    at_el1

    at_el2:
        ADDRESS x1, early_vectors
        msr     vbar_el2, x1
        isb
        adr     x3, 1f
        b       join_coherency
    1:  mov     x0, #1 << 31            // EL1 is 64-bit; nothing is trapped
        msr     hcr_el2, x0
        mov     x0, #3                  // EL1 may use counter and timer
        msr     cnthctl_el2, x0
        msr     cntvoff_el2, xzr
        mov     x0, #0x33ff             // floating point is not trapped
        msr     cptr_el2, x0
        msr     hstr_el2, xzr
        msr     vttbr_el2, xzr
        mrs     x0, id_aa64dfr0_el1
        ubfx    x0, x0, #8, #4          // is there a performance monitor we know?
        sub     x2, x0, #1
        cmp     x2, #0xe
        mov     x0, xzr
        b.hs    2f
        mrs     x0, pmcr_el0
        ubfx    x0, x0, #11, #5         // all its counters are EL1's
    2:  msr     mdcr_el2, x0
        mrs     x0, midr_el1
        msr     vpidr_el2, x0
        mrs     x0, mpidr_el1
        msr     vmpidr_el2, x0
        mrs     x0, midr_el1
        ubfx    x0, x0, #4, #12
        mov     x2, #0xd08
        cmp     x0, x2
        b.ne    3f
        mov     x0, #2                  // EL1 may write a Cortex-A72's CPUECTLR_EL1, if the stub lets us allow it
        msr     actlr_el2, x0
    3:  ldr     x0, =0x30d00800         // EL1 begins with MMU and caches off
        msr     sctlr_el1, x0
        mov     x0, #0x3c5              // EL1, own stack pointer, all masked
        msr     spsr_el2, x0
        adr     x0, at_el1
        msr     elr_el2, x0
        eret

    at_el1:
        msr     vbar_el1, x1            // until own_stacks: early_vectors
        mov     x0, #3 << 20            // floating point and NEON on
        msr     cpacr_el1, x0
        msr     cntkctl_el1, xzr
        msr     mdscr_el1, xzr
        isb
        msr     fpcr, xzr               // round to nearest, keep tiny numbers, keep NaNs
        msr     fpsr, xzr
        ret

    // Joins a Cortex-A72 to its neighbours' coherency (CPUECTLR_EL1.SMPEN) where the stub has not: before any
    // cache is on. Whether we may write the register is the stub's choice; where not, early_vectors goes on at
    // the label after. Returns to x3.
    join_coherency:
        isb
        mrs     x0, midr_el1
        ubfx    x0, x0, #4, #12
        mov     x2, #0xd08
        cmp     x0, x2
        b.ne    guarded_end
    guarded_start:
        mrs     x0, S3_1_C15_C2_1
        tbnz    x0, #6, guarded_end
        orr     x0, x0, #0x40
        msr     S3_1_C15_C2_1, x0
        isb
    guarded_end:
        br      x3

    .ltorg

    // Above EL1 only the guarded lines and those of the interrupts' groups may fault; and what EL1 tries in `guarded`.
    .balign 2048
    early_vectors:
        .rept 16
        .balign 128
        b       early_fault
        .endr
    early_fault:
        mrs     x0, CurrentEL
        cmp     x0, #0x4
        b.eq    early_dead
        cmp     x0, #0x8
        b.ne    4f
        mrs     x0, spsr_el2            // from EL1: a register that the stub keeps from us (`guarded`)
        tst     x0, #0x8                // EL2's own state: the entry code's
        b.ne    4f
        mrs     x0, elr_el2
        ADDRESS x2, embodios_guarded_start
        cmp     x0, x2
        b.lo    early_dead
        ADDRESS x2, embodios_guarded_end
        cmp     x0, x2
        b.hs    early_dead
        msr     elr_el2, x2
        eret
    4:  mrs     x0, CurrentEL
        cmp     x0, #0xc
        b.eq    1f
        mrs     x0, elr_el2
        b       2f
    1:  mrs     x0, elr_el3
    2:  adr     x2, guarded_start
        cmp     x0, x2
        b.lo    5f
        adr     x2, guarded_end
        cmp     x0, x2
        b.lo    6f
    5:  adr     x2, interrupts_start
        cmp     x0, x2
        b.lo    early_dead
        adr     x2, interrupts_end
        cmp     x0, x2
        b.hs    early_dead
    6:  mrs     x0, CurrentEL
        cmp     x0, #0xc
        b.eq    3f
        msr     elr_el2, x2
        eret
    3:  msr     elr_el3, x2
        eret

    // Nothing can tell but the light, which flickers for ever: GPIO 42 of a Raspberry Pi 4 (GPFSEL4, GPSET1, GPCLR1), pin 9 of
    // the always-on block of a Raspberry Pi 5 (data, direction; its other pins keep their levels). Other boards stay dark. At
    // EL1 the MMU may be on, with no device in its map.
    early_dead:
        msr     daifset, #0xf
        mov     x1, #0xdead             // this has begun before: it is another machine with such a core
        cmp     x28, x1
        b.eq    halt
        mov     x28, x1
        mrs     x0, CurrentEL
        cmp     x0, #0x4
        b.ne    1f
        mrs     x0, sctlr_el1
        bic     x0, x0, #1
        msr     sctlr_el1, x0
        isb
    1:  mrs     x0, midr_el1
        ubfx    x0, x0, #4, #12
        mov     x1, #0xd08
        cmp     x0, x1
        b.eq    5f
        mov     x1, #0xd0b
        cmp     x0, x1
        b.ne    halt
        mrs     x0, mpidr_el1           // core 0 may be at the card's pins of the same block
        tst     x0, #0xff00
        b.ne    halt
        ldr     x1, =0x107d517c00
        ldr     w2, [x1, #8]
        bic     w2, w2, #0x200          // an output
        str     w2, [x1, #8]
    6:  ldr     w2, [x1, #4]
        eor     w2, w2, #0x200
        str     w2, [x1, #4]
        bl      early_pause
        b       6b
    5:  movz    x1, #0xfe20, lsl #16
        ldr     w2, [x1, #0x10]
        bic     w2, w2, #0x1c0
        orr     w2, w2, #0x40           // an output
        str     w2, [x1, #0x10]
        mov     w3, #0x400
    2:  str     w3, [x1, #0x20]
        bl      early_pause
        str     w3, [x1, #0x2c]
        bl      early_pause
        b       2b
    early_pause:                        // an eighth of a second
        mrs     x4, cntfrq_el0
        cbnz    x4, 3f
        movz    x4, #54000000 >> 16, lsl #16
    3:  mrs     x5, cntpct_el0
    4:  mrs     x6, cntpct_el0
        sub     x6, x6, x5
        cmp     x6, x4, lsr #3
        b.lo    4b
        ret
    .ltorg
    "#,
    paint = const PAINT,
    link = const LINK_ADDRESS,
    cores = const CORES_MAX,
    slot = const STACK_SLOT,
    fault_top = const FAULT_STACK.end,
    mair = const mmu::MAIR,
    parameters = sym PARAMETERS,
);

#[unsafe(no_mangle)]
extern "C" fn embodios_start(x0: u64, ticks: u64, level: u64) -> ! {
    crate::start(Entry { x0, ticks, level: level as u8 })
}

#[unsafe(no_mangle)]
extern "C" fn embodios_core_start(core: usize) -> ! {
    crate::start_core(core)
}

/// How we were entered.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The boot loader's first argument: a device tree's address, or not.
    pub x0: u64,
    /// The counter at the first instruction.
    pub ticks: u64,
    /// The exception level of the first instruction.
    pub level: u8,
}

/// What a core needs before its MMU is on: root of the tables, SCTLR_EL1, and whether it may begin. On a cache
/// line of its own, and in the file: a core may look before core 0 has zeroed what is not.
#[repr(C, align(64))]
struct Parameters([AtomicU64; 8]);

#[unsafe(link_section = ".data.parameters")]
static PARAMETERS: Parameters = Parameters([const { AtomicU64::new(0) }; 8]);

unsafe extern "C" {
    static __image_start: u8;
    static __constants_start: u8;
    static __data_start: u8;
    static __early_tables: [AtomicU64; 6 * 512];
    static __stacks_start: u8;
    static __image_end: u8;
    static embodios_embedded: u64;
    fn embodios_core_entry();
}

/// Where the parts of the image are.
pub fn image() -> Image {
    let [start, constants, data, stacks, end] = [
        &raw const __image_start,
        &raw const __constants_start,
        &raw const __data_start,
        &raw const __stacks_start,
        &raw const __image_end,
    ]
    .map(|symbol| symbol as u64);
    Image { code: start..constants, constants: constants..data, data: data..stacks, stacks: stacks..end }
}

/// Where a model lies that was appended to the image, if one was: the image's header says how long it is, and with that
/// model the size that the header tells boot loaders is what both take.
pub fn embedded() -> Option<Range<u64>> {
    // SAFETY: it is a word of the image's header, which was changed in the file, if at all.
    let bytes = unsafe { (&raw const embodios_embedded).read_volatile() };
    let start = image().stacks.end;
    (bytes > 0).then(|| start..start.saturating_add(bytes))
}

/// The pages below each stack that nothing may touch.
pub fn guard_pages() -> impl Iterator<Item = Range<u64>> {
    let stacks = image().stacks.start;
    (0..CORES_MAX as u64).flat_map(move |core| {
        let slot = stacks + core * STACK_SLOT;
        [slot..slot + FAULT_STACK.start, slot + FAULT_STACK.end..slot + STACK.start]
    })
}

/// Bytes of a core's stack, and how many of them were ever used.
pub fn stack_use(core: usize) -> (u64, u64) {
    let slot = image().stacks.start + core as u64 * STACK_SLOT;
    let (bottom, top) = (slot + STACK.start, slot + STACK.end);
    // SAFETY: it is mapped memory of the image that holds words of paint or of stack. A stack in use may change
    // meanwhile: a volatile read of a word gives its old or its new value.
    let untouched =
        (bottom..top).step_by(8).take_while(|&word| unsafe { (word as *const u64).read_volatile() } == PAINT);
    let free = untouched.count() as u64 * 8;
    (top - bottom, top - bottom - free)
}

/// The map all cores use. Sixty-four tables: one of GiB, which RAM needs no more of, where it fills them; seventeen to show 16 GiB
/// in one stretch, two for the devices of a Raspberry Pi 5, the rest for the GiB and the 2 MiB blocks in which rights change.
static TABLES: Tables<64> = Tables::new();

/// Who has which RAM.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The small heap.
    pub heap: Range<u64>,
    /// What large pieces come from.
    pub large: Ranges,
    /// What the boot loader keeps.
    pub reserved: Ranges,
    /// Bytes of RAM that lie too high to be used.
    pub left_out: u64,
    /// The device tree.
    pub tree: Option<Range<u64>>,
    /// The initial RAM disk.
    pub initrd: Option<Range<u64>>,
}

/// Maps RAM by who uses it, moves over to that map, and gives the allocator what is free. `picture` is the
/// memory of a framebuffer, which the hand-over has reserved as far as it lies in RAM.
pub fn take_memory(
    handoff: &Handoff,
    tree: Option<Range<u64>>,
    picture: Option<Range<u64>>,
    board: &Board,
    release: Release,
    allocator: &memory::Allocator,
) -> Result<Layout, MapError> {
    let mut plan = Plan::new(handoff, tree.as_ref(), board, release, &image())?;
    if let Some(picture) = &picture {
        plan.lend(picture)?;
    }
    plan.fill(&TABLES)?;
    for page in guard_pages() {
        TABLES.forbid(page)?;
    }
    // SAFETY: that maps code, constants, data, stacks and devices, each with what we do there; the hand-over is
    // copied or mapped for reading.
    unsafe { mmu::switch(&TABLES) };

    // SAFETY: RAM that the boot loader told of, less what anything uses; mapped for writing above, twice.
    let heap = unsafe { allocator.start(&plan.free, plan.joined) };
    let large = memory::free_ranges(&plan.free, core::slice::from_ref(&heap));
    let large = large.into_iter().filter(|range| range.end - range.start >= memory::LARGE as u64).collect();
    let reserved = handoff.reserved.iter().cloned().collect();
    Ok(Layout { heap, large, reserved, left_out: plan.left_out, tree, initrd: plan.initrd })
}

/// The register blocks of the board we are on. Puts them into the entry code's map, which is in use until
/// [`take_memory`] has built its own: once, on core 0.
pub fn devices(board: &Board) -> Devices {
    // SAFETY: the entry code has built them there, and no one else writes them.
    let tables = unsafe { &__early_tables };
    for range in board.peripherals {
        for (place, entry) in mmu::early_devices(range.clone()) {
            tables[place].store(entry, Ordering::Relaxed);
        }
        mmu::forget(range.start); // an entry that was empty has only to be seen
    }
    // SAFETY: it is the board that the hand-over names, and its peripherals are mapped.
    unsafe { board.devices() }
}

/// The header's UART where it is behind a bus of its own. After [`devices`].
pub fn header_uart(board: &Board) -> Option<HeaderUart> {
    // SAFETY: it is the board that the hand-over names, and its peripherals are mapped.
    unsafe { board.header_uart() }
}

/// The memory of a picture that VideoCore shows, to be written. Once, after [`take_memory`] has mapped it.
pub fn surface(picture: &Framebuffer) -> Option<Surface> {
    let (start, bytes) = (picture.memory.start, (picture.memory.end - picture.memory.start) as usize);
    // SAFETY: VideoCore has lent us this memory; it is aligned to 16 bytes and mapped for writing, no part of what the
    // allocator gives out, and holds nothing but cells that may have any bits.
    let pixels = unsafe {
        match picture.depth {
            Depth::Sixteen => {
                Pixels::Sixteen(core::slice::from_raw_parts(start as *const AtomicU16, bytes / 2))
            }
            Depth::ThirtyTwo => {
                Pixels::ThirtyTwo(core::slice::from_raw_parts(start as *const AtomicU32, bytes / 4))
            }
        }
    };
    Surface::new(picture, pixels)
}

/// The initial RAM disk, to be used where it lies.
pub fn initrd(layout: &Layout) -> Option<&'static InPlace> {
    static DISK: Once<InPlace> = Once::new();
    let disk = layout.initrd.clone()?;
    Some(DISK.call_once(|| {
        // SAFETY: it lies in RAM and is mapped for writing; `take_memory` has kept it out of every other use, and this
        // is done once.
        InPlace::new(unsafe {
            core::slice::from_raw_parts_mut(disk.start as *mut u8, (disk.end - disk.start) as usize)
        })
    }))
}

/// Lets the other cores begin.
pub fn release_cores(board: &Board, release: Release) -> Begun {
    PARAMETERS.0[0].store(TABLES.root(), Ordering::Release);
    PARAMETERS.0[1].store(mmu::SCTLR, Ordering::Release);
    PARAMETERS.0[2].store(1, Ordering::Release);
    let entry = embodios_core_entry as *const () as usize;
    // SAFETY: spin-table words are in page 0, which only the stub uses and which is mapped; the entry code expects nothing of a
    // core but these parameters.
    unsafe { release.start(board.cores, entry, &PARAMETERS.0) }
}

/// Takes page 0 away once no core is in it any more: a null pointer then faults.
pub fn close_page_zero() {
    if TABLES.forbid(PAGE_ZERO).is_ok() {
        mmu::forget(PAGE_ZERO.start);
    }
}

/// Reads the hand-over: what x0 held, or the tags a boot loader leaves at 0x100. The entry code has mapped both.
///
/// Returns also the device tree's own place, which stays taken.
pub fn read_handoff(x0: u64) -> (Handoff, Option<Range<u64>>) {
    /// Memory as bytes.
    ///
    /// # Safety
    /// `start..start + length` must be mapped and not written while the slice is used.
    unsafe fn memory(start: u64, length: usize) -> &'static [u8] {
        // SAFETY: the caller vouches for it.
        unsafe { core::slice::from_raw_parts(start as *const u8, length) }
    }
    let tree = x0 >= 0x1000 && x0.is_multiple_of(8) && x0 < (4 << 30) - handoff::TREE_MAX as u64;
    if tree {
        // SAFETY: the entry code has mapped the 2 MiB from x0 on; nobody writes there.
        let head = unsafe { memory(x0, handoff::TREE_HEAD) };
        if let Some(length) = handoff::device_tree_length(head) {
            // SAFETY: as above: at most 2 MiB.
            let blob = unsafe { memory(x0, length) };
            if let Some(facts) = handoff::from_device_tree(blob) {
                return (facts, Some(x0..x0 + length as u64));
            }
        }
    }
    if cpu::name() == "Cortex-A72" {
        // SAFETY: the entry code has mapped page 0 of a Raspberry Pi 4, up to the image at least 16 KiB of it.
        let tags = unsafe { memory(0x100, handoff::TAGS_MAX) };
        if let Some(facts) = handoff::from_tags(tags) {
            return (facts, None);
        }
    }
    (Handoff::default(), None)
}
