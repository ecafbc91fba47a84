//! `logits`, `digest`, `perplexity`: what the model computes, for comparing with others and with itself.

use crate::host::{self, Engine, log_sum_exp};
use crate::tokenize::shown;
use anyhow::{Context, Result, ensure};
use embodios::session::Session;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Show the logits after every token of a sequence: log-sum-exp and the likeliest.
#[derive(clap::Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    engine: Engine,
    /// The token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// How many of the likeliest to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// One line of JSON: an array with an object for each position
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Position {
    position: usize,
    token: u32,
    log_sum_exp: f64,
    /// Token and logit, the likeliest first.
    top: Vec<(u32, f32)>,
}

/// Carries out `logits`.
pub fn logits(args: &LogitsArgs) -> Result<()> {
    let (model, threads) = args.engine.load()?;
    let (count, context) = (args.tokens.len(), model.spec().context);
    ensure!(count <= context, "{count} tokens are more than the {context} that the model's window holds");
    let mut positions = Vec::new();
    host::logits_of_each(&model, (&threads, args.engine.kv), &args.tokens, &mut |position, logits| {
        let (token, log_sum_exp, top) =
            (args.tokens[position], log_sum_exp(logits), likeliest(logits, args.top));
        positions.push(Position { position, token, log_sum_exp, top });
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&positions)?);
        return Ok(());
    }
    let piece = |token| shown(model.tokenizer().piece(token));
    for Position { position, token, log_sum_exp, top } in positions {
        println!("{position}: after {token} {}, log-sum-exp {log_sum_exp:.6}", piece(token));
        for (token, logit) in top {
            let probability = (f64::from(logit) - log_sum_exp).exp();
            println!("  {token:7}  {logit:12.6}  {:6.2} %  {}", probability * 100.0, piece(token));
        }
    }
    Ok(())
}

/// The tokens with the greatest logits and these, the lower id first where they are equal.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    all.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
    all.truncate(count);
    all
}

/// Print a hash of the logits after a text: equal on every level, number of threads, and board.
#[derive(clap::Args)]
pub struct DigestArgs {
    #[command(flatten)]
    engine: Engine,
    /// The text, as given to the `digest` command at the board's prompt
    text: String,
    /// Tokens to prefill at once, 1 to 512: makes no difference to the digest
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=512))]
    batch: u16,
    /// One line of JSON: the digest and the number of tokens
    #[arg(long)]
    json: bool,
}

/// Carries out `digest`.
pub fn digest(args: &DigestArgs) -> Result<()> {
    let (model, threads) = args.engine.load()?;
    let tokens = model.tokenizer().encode(&args.text, true, true);
    let mut session =
        Session::with_kv(Arc::clone(&model), tokens.len().max(1), args.engine.kv).map_err(host::said)?;
    session.set_batch(args.batch.into());
    let digest =
        threads.with(|runtime| session.feed(&tokens, runtime).map(|logits| embodios::digest(logits)));
    let digest = format!("{:016x}", digest.map_err(host::said)?);
    if args.json {
        println!("{}", serde_json::json!({ "digest": digest, "tokens": tokens.len() }));
    } else {
        println!("digest {digest} of the logits after {} tokens", tokens.len());
    }
    Ok(())
}

/// Say how well a model foresees a text: the negative log-likelihood of each token, in one window.
#[derive(clap::Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    engine: Engine,
    /// A file with UTF-8 text
    #[arg(value_name = "TEXTFILE")]
    text: PathBuf,
    /// Only the first tokens of the text
    #[arg(short, value_name = "TOKENS")]
    n: Option<usize>,
    /// One line of JSON: the tokens, the negative log-likelihood (nats) of all but the first, the perplexity
    #[arg(long)]
    json: bool,
}

/// Carries out `perplexity`.
pub fn perplexity(args: &PerplexityArgs) -> Result<()> {
    let text =
        fs::read_to_string(&args.text).with_context(|| format!("could not read {}", args.text.display()))?;
    let (model, threads) = args.engine.load()?;
    let mut tokens = model.tokenizer().encode(&text, true, false);
    tokens.truncate(args.n.unwrap_or(usize::MAX));
    ensure!(tokens.len() > 1, "the text has fewer than two tokens: there is nothing to foresee");
    let context = model.spec().context;
    ensure!(
        tokens.len() <= context,
        "the text has {} tokens and the model's window holds {context}: limit it with -n {context}",
        tokens.len()
    );
    let nll = nll(&model, (&threads, args.engine.kv), &tokens)?;
    let mean = nll.iter().sum::<f64>() / nll.len() as f64;
    if args.json {
        let answer =
            serde_json::json!({ "tokens": tokens, "nll": nll, "mean_nll": mean, "perplexity": mean.exp() });
        println!("{answer}");
    } else {
        println!("{} tokens, mean NLL {mean:.6}, perplexity {:.4}", tokens.len(), mean.exp());
    }
    Ok(())
}

/// Negative log-likelihood (nats) of every token but the first, given those before it.
pub fn nll(
    model: &Arc<embodios::Model>,
    runs: (&host::Threads, embodios::KvFormat),
    tokens: &[u32],
) -> Result<Vec<f64>> {
    let mut nll = Vec::new();
    host::logits_of_each(model, runs, tokens, &mut |position, logits| {
        if let Some(&next) = tokens.get(position + 1) {
            nll.push(log_sum_exp(logits) - f64::from(logits[next as usize]));
        }
    })?;
    Ok(nll)
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_likeliest_come_first_and_the_lower_id_wins_a_tie() {
        assert_eq!(likeliest(&[1.0, 3.0, 3.0, -1.0], 3), [(1, 3.0), (2, 3.0), (0, 1.0)]);
        assert_eq!(likeliest(&[1.0], 5).len(), 1);
    }
}
