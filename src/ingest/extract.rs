//! From files to records: readers run in parallel, statistics are taken while the weights are in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::Array4;
use rayon::prelude::*;

use super::{Convolution, FORMATS, Metadata, Model, ModelFile, ModelReader, Skipped, graph};
use crate::error::{Error, Result, printable};
use crate::math::{self, Moments};
use crate::record::{LayerRecord, ModelRecord};
use crate::schema::{FILTER_LEN, UNKNOWN};

/// What the user says of the files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Rows for single files.
    pub metadata: Option<Metadata>,
    /// The task of every file that the metadata does not give one.
    pub task: Option<String>,
    /// The data type of every file that the metadata does not give one.
    pub data_type: Option<String>,
    /// Refuse NaN and infinite weights.
    pub strict: bool,
}

/// What became of a file.
#[derive(Debug)]
pub struct Extracted<T = ModelRecord> {
    /// The file.
    pub file: PathBuf,
    /// The format by which it was read.
    pub format: &'static str,
    /// Name of the model.
    pub model: String,
    /// The model's layers; `None` where it has no 3x3 convolution.
    pub record: Option<T>,
    /// Layers that were passed over, with reasons.
    pub skipped: Vec<Skipped>,
}

/// The reader whose format these contents are of.
pub fn sniff(bytes: &[u8]) -> Option<&'static dyn ModelReader> {
    FORMATS.iter().copied().find(|format| format.sniff(bytes))
}

/// Reads one model file whole: format, convolutions.
///
/// # Errors
/// [`Error::Io`], [`Error::Model`].
pub fn read(file: &ModelFile) -> Result<(&'static dyn ModelReader, Model)> {
    if file.bytes().is_empty() {
        return Err(file.invalid("", "the file is empty"));
    }
    let Some(format) = sniff(file.bytes()) else {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
        return Err(file.invalid("", format!("expected a model file ({}), found none of these", names.join(", "))));
    };
    Ok((format, format.read(file)?))
}

/// Names of the models in `files`, and their rows in the metadata; no two may have one name.
///
/// # Errors
/// [`Error::Metadata`], [`Error::Model`].
pub fn names(files: &[PathBuf], options: &Options) -> Result<Vec<String>> {
    let mut seen: HashMap<String, &Path> = HashMap::new();
    let mut names = Vec::with_capacity(files.len());
    for file in files {
        let name = name(file, options)?;
        if let Some(other) = seen.insert(name.clone(), file) {
            let reason = format!(
                "would be the model '{name}', as {} is: name them in the column 'model' of --metadata",
                other.display()
            );
            return Err(Error::model(file, "", reason));
        }
        names.push(name);
    }
    Ok(names)
}

fn name(file: &Path, options: &Options) -> Result<String> {
    let row = options.metadata.as_ref().map(|metadata| metadata.row(file)).transpose()?.flatten();
    match row.and_then(|row| row.model.clone()) {
        Some(name) => Ok(name),
        None => match file.file_stem().and_then(|stem| stem.to_str()) {
            Some(stem) => Ok(stem.to_owned()),
            None => Err(Error::model(file, "", "the file's name is not UTF-8: name the model in --metadata")),
        },
    }
}

/// Extracts `files` on all cores, as many at once as there are threads, and gives each record to `then` on the
/// thread that read it: weights need not outlive their writing. Results come to `done` as they are ready; no file
/// is begun once `stopped` says so.
pub fn extract<T: Send>(
    files: &[PathBuf],
    options: &Options,
    stopped: &(dyn Fn() -> bool + Sync),
    then: impl Fn(ModelRecord) -> Result<T> + Sync,
    done: impl Fn(usize, Result<Extracted<T>>) + Sync,
) {
    files.par_iter().enumerate().with_max_len(1).for_each(|(index, file)| {
        if stopped() {
            return;
        }
        let result = extract_one(file, options).and_then(|extracted| {
            let Extracted { file, format, model, record, skipped } = extracted;
            Ok(Extracted { file, format, model, record: record.map(&then).transpose()?, skipped })
        });
        done(index, result);
    });
}

/// One file's record.
///
/// # Errors
/// [`Error::Io`], [`Error::Model`], [`Error::Metadata`].
pub fn extract_one(path: &Path, options: &Options) -> Result<Extracted> {
    let file = ModelFile::open(path)?;
    let (format, model) = read(&file)?;
    let row = options.metadata.as_ref().map(|metadata| metadata.row(path)).transpose()?.flatten();
    let key = |own: Option<&String>, given: &Option<String>| {
        own.or(given.as_ref()).cloned().unwrap_or_else(|| UNKNOWN.to_owned())
    };
    let columns = options.metadata.as_ref().map(Metadata::columns).unwrap_or_default();
    let free = row.map(|row| row.free.as_slice()).unwrap_or_default();
    let n_convolutions = model.convolutions.len();
    let (mut producer, skipped) = (model.producer, model.skipped);
    // A name of a stranger's file, and part of every row that a query prints.
    producer = producer.map(|producer| printable(&producer));
    let sha256 = file.sha256();
    drop(file);
    let record = ModelRecord {
        model: name(path, options)?,
        task: key(row.and_then(|row| row.task.as_ref()), &options.task),
        data_type: key(row.and_then(|row| row.data_type.as_ref()), &options.data_type),
        metadata: columns.iter().zip(free).filter_map(|(column, cell)| Some((column.clone(), cell.clone()?))).collect(),
        file: path.to_string_lossy().into_owned(),
        sha256,
        format: format.name(),
        producer,
        n_convolutions,
        layers: layers(path, model.convolutions)?,
    };
    for (what, text) in [("model", &record.model), ("task", &record.task), ("data type", &record.data_type)] {
        check_name(path, what, text)?;
    }
    if options.strict && record.n_nonfinite() > 0 {
        let worst = record.layers.iter().find(|layer| layer.moments.n_skipped() > 0);
        let at = worst.map(|layer| format!("layer '{}'", layer.name)).unwrap_or_default();
        let n = worst.map_or(0, |layer| layer.moments.n_skipped());
        return Err(Error::model(
            path,
            at,
            format!("{n} filters hold NaN or infinite weights, and --strict refuses them"),
        ));
    }
    Ok(Extracted {
        file: path.into(),
        format: format.name(),
        model: record.model.clone(),
        record: (!record.layers.is_empty()).then_some(record),
        skipped,
    })
}

fn check_name(file: &Path, what: &str, name: &str) -> Result<()> {
    let reason = if name.trim().is_empty() {
        "is empty".to_owned()
    } else if name.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::model(file, format!("name of the {what} '{}'", printable(name)), reason))
}

/// The 3x3 layers by depth, with statistics. Every 2-D convolution counts for the ranks.
fn layers(file: &Path, convolutions: Vec<Convolution>) -> Result<Vec<LayerRecord>> {
    let depths: Vec<usize> = convolutions.iter().map(|convolution| convolution.depth).collect();
    let ranks = graph::rank(&depths);
    let deepest = ranks.iter().copied().max().unwrap_or(0);
    let mut ranked: Vec<(usize, Convolution)> = ranks.into_iter().zip(convolutions).collect();
    // Stable: parallel convolutions stay in the file's order.
    ranked.sort_by_key(|(rank, _)| *rank);
    let stored = ranked.into_iter().filter_map(|(rank, mut convolution)| {
        let weights = convolution.weights.take()?;
        (!weights.is_empty()).then_some((rank, convolution, weights))
    });
    stored
        .enumerate()
        .map(|(layer, (conv_depth, convolution, weights))| {
            let weights = weights.as_standard_layout().into_owned();
            let (moments, moments_scaled) = moments(&weights)
                .map_err(|e| Error::model(file, format!("layer '{}'", convolution.name), e.to_string()))?;
            Ok(LayerRecord {
                layer,
                conv_depth,
                conv_depth_norm: graph::conv_depth_norm(conv_depth, deepest),
                depth_decile: graph::depth_decile(conv_depth, deepest),
                depth_source: convolution.depth_source.as_str(),
                out_channels: convolution.out_channels,
                in_channels: convolution.in_channels,
                groups: convolution.groups,
                uses: convolution.uses,
                name: printable(&convolution.name),
                quality: math::quality(weights.view()),
                moments,
                moments_scaled,
                weights,
            })
        })
        .collect()
}

/// Moments of the raw and of the scaled filters.
fn moments(weights: &Array4<f32>) -> Result<(Moments, Moments)> {
    let rows = weights.as_slice().unwrap_or_default();
    let mut scaled = vec![0f32; rows.len()];
    math::scale(rows, FILTER_LEN, &mut scaled);
    let (mut raw_moments, mut scaled_moments) = (Moments::default(), Moments::default());
    raw_moments.update(rows, FILTER_LEN)?;
    scaled_moments.update(&scaled, FILTER_LEN)?;
    Ok((raw_moments, scaled_moments))
}
