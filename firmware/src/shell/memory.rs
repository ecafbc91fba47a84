//! status, mem: the board as it is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use embodios::sampler::origins;

use super::{Shell, health};
use crate::NoInterrupts;
use crate::loader::Mib;

/// `status`.
pub fn status(shell: &mut Shell, _: &str) {
    let status = shell.platform.status();
    let mut board = status.board.clone();
    if let Some(revision) = status.revision {
        let _ = write!(board, ", revision {revision:x}");
    }
    shell.say(format_args!("board        {board}"));
    let mut cores = alloc::format!("{} x {}, level {}", status.cores, status.cpu, shell.level);
    for (name, hz, most) in [("Arm", status.arm_hz, status.arm_max_hz), ("core", status.core_hz, None)] {
        if let Some(hz) = hz {
            let _ = write!(cores, ", {name} clock {} MHz", hz / 1_000_000);
        }
        if let (Some(_), Some(most)) = (hz, most) {
            let _ = write!(cores, " of {}", most / 1_000_000);
        }
    }
    shell.say(format_args!("cores        {cores}"));
    health::report(shell, &status);
    let deaf = shell.platform.deaf_cores();
    if deaf > 0 {
        shell.say(format_args!("interrupts   {}", NoInterrupts { deaf, cores: status.cores }));
    }
    if let Some(display) = &status.display {
        shell.say(format_args!("display      {display}"));
    }
    if let Some(card) = &status.card {
        shell.say(format_args!("card         {card}"));
    }
    let seconds = shell.platform.nanos() / 1_000_000_000;
    shell.say(format_args!("running      {}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    let model = match &shell.talker {
        None => String::from("none"),
        Some(talker) => alloc::format!("{}, {}", talker.conversation.model().name(), talker.file),
    };
    shell.say(format_args!("model        {model}"));
    if let Some(talker) = &shell.talker {
        let session = talker.conversation.session();
        let (used, all, seed) = (session.position(), session.context(), talker.conversation.sampling().seed);
        let (kv, template) = (session.kv(), talker.template());
        shell.say(format_args!("conversation {used} of {all} tokens, seed {seed}, keys and values in {kv}"));
        shell.say(format_args!("template     {template}"));
        for (who, list) in origins(&shell.asked(), &shell.config.sampling) {
            if !list.is_empty() {
                shell.say(format_args!("sampling     {list} ({who})"));
            }
        }
    }
}

/// `mem`.
pub fn mem(shell: &mut Shell, _: &str) {
    for region in shell.platform.memory() {
        let (name, end) = (&region.name, region.start + region.bytes);
        let (used, bytes) = (Mib(region.used), Mib(region.bytes));
        shell.say(format_args!("{name:12} {:#012x}-{end:#012x}  {used} of {bytes} used", region.start));
    }
    let free = Mib(shell.platform.memory_free());
    shell.say(format_args!("free for a model: {free}"));
    let stacks = shell.platform.stacks();
    if !stacks.is_empty() {
        let most: Vec<_> =
            stacks.iter().map(|stack| alloc::format!("{} {}", stack.name, Mib(stack.most))).collect();
        let of = Mib(stacks[0].bytes);
        shell.say(format_args!("stacks, the most ever used of {of} each: {}", most.join(", ")));
    }
    let heap = shell.platform.heap();
    if let Some((now, most)) = heap {
        shell.say(format_args!("heap: {} now, {} at most", Mib(now), Mib(most)));
    }
    if let Some(talker) = &shell.talker {
        let session = talker.conversation.session();
        let model = alloc::sync::Arc::clone(talker.conversation.model());
        let (context, (cache, scratch)) = (session.context(), session.bytes());
        let (own, weights) = (model.own_bytes(), model.weight_memory().len() as u64);
        let place = if own == 0 { ", used where the boot loader put them" } else { "" };
        shell.say(format_args!(
            "{}: {} of weights{place}; {} of them are read for each token",
            model.name(),
            Mib(weights),
            Mib(model.weight_bytes())
        ));
        shell.say(format_args!(
            "keys and values: {} for {context} tokens; scratch: {}",
            Mib(cache),
            Mib(scratch)
        ));
        // Scratch lies partly in the heap, so it is no sum of the two: all that is taken, less weights and cache.
        let used = |name: &str| {
            let regions = shell.platform.memory();
            regions.iter().filter(|region| region.name == name).map(|region| region.used).sum::<u64>()
        };
        if let Some((now, _)) = heap {
            let rest = (used("models") + now).saturating_sub(own + cache);
            shell.say(format_args!("scratch and heap beyond weights, keys and values: {}", Mib(rest)));
        }
    }
}
