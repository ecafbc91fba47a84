//! `models requantize`: the same model in another weight format, made from the one there is.

use crate::{host, models, project};
use anyhow::{Context, Result, bail, ensure};
use embodios::ByteSource;
use embodios::gguf::Gguf;
use embodios::gguf::writer::Writer;
use embodios::quant::{self, Row};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Make a model with its matrices in another weight format.
///
/// From weights that are rounded already: what was lost stays lost, and rounding them again loses more. A file
/// quantized from the original weights answers better. This serves to compare formats in speed and in size.
///
/// Embedding, output head and norms stay as they are. The same input gives the same file, byte by byte.
#[derive(clap::Args)]
pub struct Args {
    /// The model: a name from `models list` or a path
    model: String,
    /// The weight format: Q4_0, Q4_1, Q8_0, F16 …; or Q4_K_M, the mixture of that name
    format: String,
    /// Where to put it [default: models/cache/NAME.FORMAT-from-OLD.gguf]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Carries out `models requantize`; prints the path as the last line.
pub fn run(args: &Args) -> Result<()> {
    let model = models::resolve(&args.model)?;
    let path = match &args.output {
        None => cached(&model, Choice::named(&args.format)?)?,
        Some(path) => {
            write(&model, Choice::named(&args.format)?, path)?;
            path.clone()
        }
    };
    println!("{}", path.display());
    Ok(())
}

/// What the matrices of the layers become.
#[derive(Clone, Copy)]
pub enum Choice {
    /// All of them this format.
    One(&'static Row),
    /// Q4_K_M: Q4_K, and Q6_K where a matrix matters more; where a row is no multiple of 256 weights Q5_0 and Q8_0
    /// stand in for them.
    Mixture,
}

/// The mixture's name.
const MIXTURE: &str = "Q4_K_M";

impl Choice {
    /// The choice that people write so.
    pub fn named(name: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case(MIXTURE) {
            return Ok(Self::Mixture);
        }
        quant::by_name(name).map(Self::One).with_context(|| {
            let names: Vec<_> = quant::FORMATS.iter().map(|row| row.name).collect();
            format!("there is no weight format {name} here, only {} and {MIXTURE}", names.join(", "))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::One(format) => format.name,
            Self::Mixture => MIXTURE,
        }
    }

    /// The format of a matrix of layer `layer` of `layers`, its rows `columns` long.
    fn of(self, tensor: &str, columns: usize, layer: usize, layers: usize) -> Result<&'static Row> {
        let name = match self {
            Self::One(format) => return Ok(format),
            Self::Mixture => {
                // As llama.cpp chooses for files of type 15: the first and the last eighth of the layers, and every
                // third between them, have more bits for values and for the way down.
                let matters = layer < layers / 8
                    || layer >= 7 * layers / 8
                    || layer.saturating_sub(layers / 8) % 3 == 2;
                let more = matters && (tensor.contains("attn_v.") || tensor.contains("ffn_down."));
                match (more, columns.is_multiple_of(256)) {
                    (false, true) => "Q4_K",
                    (true, true) => "Q6_K",
                    (false, false) => "Q5_0",
                    (true, false) => "Q8_0",
                }
            }
        };
        quant::by_name(name).with_context(|| format!("there is no weight format {name}"))
    }
}

/// The path of `model` with this choice in the cache; made unless it is there.
pub fn cached(model: &Path, choice: Choice) -> Result<PathBuf> {
    let name = model.file_stem().context("the model has no file name")?.to_string_lossy();
    let (stem, old) = match name.rsplit_once('.') {
        Some((stem, old)) if quant::by_name(old).is_some() => (stem, old),
        _ => (&*name, "other"),
    };
    // Two threads that want the same file don't make it twice.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = models::cache().join(format!("{stem}.{}-from-{old}.gguf", choice.name()));
    // Newer than what it was made from, it was made from that.
    let age = |path: &Path| path.metadata().and_then(|file| file.modified());
    if let (Ok(made), Ok(given)) = (age(&path), age(model))
        && made >= given
    {
        return Ok(path);
    }
    write(model, choice, &path)?;
    Ok(path)
}

/// Writes `model` with this choice.
fn write(model: &Path, choice: Choice, path: &Path) -> Result<()> {
    eprintln!("making {} from {}", project::shown(path), project::shown(model));
    let bytes = requantized(&*host::open_file(model)?, choice)
        .with_context(|| format!("{} can't be requantized", model.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    // Beside and renamed: what has the final name is whole.
    let part = path.with_extension(format!("part{}", std::process::id()));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&part, bytes))
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("could not write {}", path.display()))
}

/// The file with the matrices of its layers as chosen.
fn requantized(source: &dyn ByteSource, choice: Choice) -> Result<Vec<u8>> {
    let gguf = Gguf::open(source).map_err(host::said)?;
    let alignment = gguf.metadata.opt_u32("general.alignment").map_err(host::said)?;
    ensure!(alignment.is_none_or(|bytes| bytes == 32), "its tensors are not aligned to 32 bytes");
    let read = |offset: u64, bytes: u64| {
        let mut buffer = vec![0; usize::try_from(bytes)?];
        source.read_at(offset, &mut buffer).map_err(host::said)?;
        anyhow::Ok(buffer)
    };
    let from = Gguf::METADATA_OFFSET;
    let mut metadata = read(from, gguf.directory_offset - from)?;
    set_file_type(&mut metadata, choice.name());
    let mut file = Writer::new();
    file.copied(gguf.metadata.iter().count() as u64, &metadata);
    // "blk.7.ffn_down.weight" is of layer 7.
    let layer = |name: &str| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<usize>().ok();
    let layers = gguf.tensors.iter().filter_map(|info| layer(&info.name)).max().map_or(0, |last| last + 1);
    for info in &gguf.tensors {
        let mut data = read(info.offset, info.bytes)?;
        let mut kind = info.kind;
        if let Some(layer) = layer(&info.name)
            && info.rows() > 1
        {
            let old = quant::by_id(info.kind)
                .with_context(|| format!("tensor {} has a format that is not known here", info.name))?;
            let columns = usize::try_from(info.columns())?;
            let format = choice.of(&info.name, columns, layer, layers)?;
            if columns % format.len != 0 {
                bail!("the rows of {} are no multiple of {} weights", info.name, format.len);
            }
            let (mut weights, mut packed) = (vec![0.0; columns], Vec::new());
            for row in data.chunks_exact(old.row_bytes(columns)) {
                (old.dequantize)(row, &mut weights);
                (format.quantize)(&weights, &mut packed);
            }
            (data, kind) = (packed, format.id);
        }
        file.tensor(&info.name, kind, &info.shape, data);
    }
    Ok(file.finish())
}

/// Corrects `general.file_type`, which nobody needs and many show. Source: GGUF specification, `general.file_type`:
/// F32 0, F16 1, Q4_0 2, Q4_1 3, Q8_0 7, Q4_K_M 15, BF16 32.
fn set_file_type(metadata: &mut [u8], format: &str) {
    const KEY: &[u8] = b"\x11\0\0\0\0\0\0\0general.file_type\x04\0\0\0";
    let number: u32 = match format {
        "F32" => 0,
        "F16" => 1,
        "Q4_0" => 2,
        "Q4_1" => 3,
        "Q8_0" => 7,
        MIXTURE => 15,
        "BF16" => 32,
        _ => return,
    };
    if let Some(at) = metadata.windows(KEY.len()).position(|window| window == KEY) {
        let at = at + KEY.len();
        metadata[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodios::source::Memory;
    use embodios::synth;

    fn source(bytes: Vec<u8>) -> Memory {
        Memory(bytes.leak())
    }

    #[test]
    fn matrices_of_layers_change_their_format_and_nothing_else_does() {
        let given = source(synth::tiny(1, quant::by_name("Q4_1").unwrap()));
        let q8_0 = quant::by_name("Q8_0").unwrap();
        let made = source(requantized(&given, Choice::One(q8_0)).unwrap());
        let (before, after) = (Gguf::open(&given).unwrap(), Gguf::open(&made).unwrap());
        assert!(before.metadata.iter().eq(after.metadata.iter()));
        assert_eq!(before.tensors.len(), after.tensors.len());
        for (before, after) in before.tensors.iter().zip(&after.tensors) {
            assert_eq!((&before.name, &before.shape), (&after.name, &after.shape));
            let matrix = before.name.starts_with("blk.") && before.rows() > 1;
            assert_eq!(after.kind, if matrix { q8_0.id } else { before.kind }, "{}", before.name);
            if !matrix {
                let bytes = |source: &Memory, info: &embodios::gguf::TensorInfo| {
                    source.0[info.offset as usize..][..info.bytes as usize].to_vec()
                };
                assert_eq!(bytes(&given, before), bytes(&made, after), "{}", before.name);
            }
        }
    }

    #[test]
    fn a_format_that_holds_every_value_of_the_old_one_loses_nothing() {
        let given = source(synth::tiny(1, quant::by_name("Q4_0").unwrap()));
        let made = source(requantized(&given, Choice::named("F16").unwrap()).unwrap());
        let weights = |source: &Memory| {
            let gguf = Gguf::open(source).unwrap();
            let info = gguf.tensor("blk.1.ffn_down.weight").unwrap();
            let mut weights = vec![0.0; (info.rows() * info.columns()) as usize];
            let bytes = &source.0[info.offset as usize..][..info.bytes as usize];
            (quant::by_id(info.kind).unwrap().dequantize)(bytes, &mut weights);
            weights
        };
        let (before, after) = (weights(&given), weights(&made));
        // A scale of 11 bits times 4 bits is 15 bits at most; binary16 keeps 11 of them.
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 1024.0;
        assert!(before.iter().zip(&after).all(near));
    }

    #[test]
    fn the_file_type_is_corrected() {
        let mut file = Writer::new();
        file.u32("general.file_type", 3).u32("general.quantization_version", 2);
        let mut file = file.finish();
        set_file_type(&mut file[24..], "Q8_0");
        let gguf = Gguf::open(&source(file)).unwrap();
        assert_eq!(gguf.metadata.u32("general.file_type"), Ok(7));
        assert_eq!(gguf.metadata.u32("general.quantization_version"), Ok(2));
    }

    #[test]
    fn the_mixture_gives_more_bits_to_the_matrices_that_matter_and_falls_back_on_blocks_of_32() {
        let of = |tensor: &str, columns, layer| Choice::Mixture.of(tensor, columns, layer, 24).unwrap().name;
        assert_eq!(of("blk.0.ffn_down.weight", 1536, 0), "Q6_K");
        assert_eq!(of("blk.0.attn_v.weight", 576, 0), "Q8_0");
        assert_eq!(of("blk.0.attn_q.weight", 576, 0), "Q5_0");
        assert_eq!(of("blk.0.attn_q.weight", 512, 0), "Q4_K");
        // Of 24 layers the first three, the last three, and 5, 8, … 20.
        let more: Vec<usize> =
            (0..24).filter(|&layer| of("blk.N.ffn_down.weight", 256, layer) == "Q6_K").collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        assert_eq!(Choice::named("q4_k_m").unwrap().name(), "Q4_K_M");
        assert!(Choice::named("Q9_9").map(Choice::name).unwrap_err().to_string().contains("and Q4_K_M"));
    }
}
