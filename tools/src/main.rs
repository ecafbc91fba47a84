//! `cargo embodi <command>`: parse, dispatch, and say in one sentence why something failed.

use clap::{Parser, Subcommand};
use embodi::{
    bench, build, chat, flash, image, inspect, logits, models, run, setup, supported, synth, test, tokenize,
};
use std::process::ExitCode;

/// EMBODIOS from your PC: set up, build, emulate, test, and run the same engine here.
///
/// A model is always given as a name from `models list` (fetched when needed) or as a path.
#[derive(Parser)]
#[command(name = "cargo embodi", bin_name = "cargo embodi", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Image(image::Args),
    Flash(flash::Args),
    Run(run::Args),
    Test(test::Args),
    Bench(bench::Args),
    Models(models::Args),
    Inspect(inspect::Args),
    Chat(chat::Args),
    Tokenize(tokenize::Args),
    Logits(logits::LogitsArgs),
    Perplexity(logits::PerplexityArgs),
    Digest(logits::DigestArgs),
    Synth(synth::Args),
    Supported(supported::Args),
}

/// A reader that has seen enough (`| head`) closes the pipe; `println!` panics then. That is no fault of ours to
/// explain at length: end like any other filter.
fn end_quietly_when_nobody_reads() {
    let explain = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or_default();
        if words.starts_with("failed printing to stdout") {
            std::process::exit(141); // 128 + SIGPIPE, as a shell would report it
        }
        explain(panic);
    }));
}

fn main() -> ExitCode {
    end_quietly_when_nobody_reads();
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Flash(args) => flash::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Logits(args) => logits::logits(&args),
        Command::Perplexity(args) => logits::perplexity(&args),
        Command::Digest(args) => logits::digest(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Supported(args) => supported::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embodi: {error:#}");
            ExitCode::FAILURE
        }
    }
}
