//! PyTorch checkpoints: the zip archive, the older stream, and pickled modules in either. A pickle is a
//! program; here it is read by a machine that runs nothing ([`pickle`]) and knows by name only what builds
//! tensors and containers ([`globals`]). Every other object is an inert record whose state is searched for
//! tensors.

mod archive;
mod build;
mod globals;
mod legacy;
mod pickle;
mod scalar;
mod value;
mod walk;

use std::collections::HashMap;

use bytes::Bytes;

use super::state_dict::{Named, convolutions};
use super::tensor::{ByteOrder, Dtype, View, gather};
use super::{Model, ModelFile, ModelReader};
use crate::error::Result;
use value::{Id, Storage, Tensor, Values};

/// The reader of files that `torch.save` wrote. Depth is the order of the state dict.
#[derive(Debug)]
pub struct PyTorch;

/// Views may repeat elements (strides of 0, overlaps): all tensors together hold at most this many more
/// than the file has bytes.
const REPEATED: usize = 4 << 20;

impl ModelReader for PyTorch {
    fn name(&self) -> &'static str {
        "pytorch"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["pt", "pth", "ckpt"]
    }

    fn sniff(&self, bytes: &[u8]) -> bool {
        is_zip(bytes) || is_stream(bytes) || is_pickle(bytes) || is_tar(bytes)
    }

    fn read(&self, file: &ModelFile) -> Result<Model> {
        let bytes = file.bytes().clone();
        if is_tar(&bytes) {
            let reason = "a tar archive of PyTorch 0.1.1 or earlier; load and save it with a later version first";
            return Err(file.invalid("", reason));
        }
        let mut values = Values::default();
        if is_zip(&bytes) {
            let archive = archive::open(file)?;
            let (root, length) = pickle::load(&archive.pickle, &mut values).map_err(|e| file.invalid("data.pkl", e))?;
            if length != archive.pickle.len() {
                return Err(file.invalid("data.pkl", format!("{} bytes follow it", archive.pickle.len() - length)));
            }
            let mut model = model(file, &values, root, &archive.records, archive.order)?;
            let kind = if archive.torch_script { "torchscript" } else { "pytorch" };
            model.producer = Some(match archive.version {
                Some(version) => format!("{kind} (archive version {version})"),
                None => kind.to_owned(),
            });
            return Ok(model);
        }
        if is_stream(&bytes) {
            let stream = legacy::open(file, &bytes, &mut values)?;
            let mut model = model(file, &values, stream.root, &stream.records, ByteOrder::Little)?;
            model.producer = Some("pytorch (before 1.6)".to_owned());
            return Ok(model);
        }
        // No container: read it only to say what is wrong with it.
        pickle::load(&bytes, &mut values).map_err(|e| file.invalid("", e))?;
        Err(file.invalid("", "a bare pickle, not saved by PyTorch: it holds no storages"))
    }
}

/// A local header at the start, with a method that this reader knows.
fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") && bytes.get(8..10).is_some_and(|method| matches!(method, [0 | 8, 0]))
        || bytes.starts_with(b"PK\x05\x06")
}

fn is_stream(bytes: &[u8]) -> bool {
    let after_protocol = if bytes.first() == Some(&0x80) { bytes.get(2..).unwrap_or_default() } else { bytes };
    // From protocol 4 on, a frame may stand in front.
    let after_frame = if after_protocol.first() == Some(&0x95) { after_protocol.get(9..) } else { None };
    let start = after_frame.unwrap_or(after_protocol);
    start.starts_with(legacy::MAGIC) || start.starts_with(legacy::MAGIC_TEXT)
}

fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Where a tensor's values are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place<'v> {
    key: &'v str,
    dtype: &'v Dtype,
    view: View,
}

fn model(
    file: &ModelFile,
    values: &Values<'_>,
    root: Id,
    records: &HashMap<String, Bytes>,
    order: ByteOrder,
) -> Result<Model> {
    let (found, mut skipped) = walk::tensors(values, root).map_err(|reason| file.invalid("", reason))?;
    let mut tensors = Vec::with_capacity(found.len());
    for found in found {
        let tensor = values.tensors.get(found.tensor as usize);
        let storage = tensor.and_then(|tensor| values.storages.get(tensor.storage as usize));
        let Some((tensor, storage)) = tensor.zip(storage) else {
            return Err(file.invalid(found.name, "a tensor without a storage"));
        };
        let place = place(tensor, storage, records).map_err(|reason| file.invalid(&found.name, reason))?;
        let shape = place.view.shape.clone();
        tensors.push(Named { name: found.name, dtype: tensor.dtype.0.clone(), shape, owner: found.owner, place });
    }
    let mut budget = records.values().map(Bytes::len).sum::<usize>().saturating_add(REPEATED);
    let mut model = convolutions(file, &tensors, |tensor| {
        let Dtype::Readable(element) = tensor.dtype else {
            return Err(file.invalid(&tensor.name, "its values cannot be read"));
        };
        let left = tensor.place.view.elements().and_then(|elements| budget.checked_sub(elements));
        budget = left.ok_or_else(|| file.invalid(&tensor.name, "views repeat far more values than the file holds"))?;
        let bytes = records.get(tensor.place.key).map(|bytes| &bytes[..]).unwrap_or_default();
        gather(bytes, element, order, &tensor.place.view).map_err(|reason| file.invalid(&tensor.name, reason))
    })?;
    model.skipped.append(&mut skipped);
    Ok(model)
}

/// A tensor's place, checked against the bytes of its storage.
fn place<'v>(
    tensor: &'v Tensor,
    storage: &'v Storage<'_>,
    records: &HashMap<String, Bytes>,
) -> Result<Place<'v>, String> {
    let key: &str = &storage.key;
    let bytes = records.get(key).ok_or_else(|| format!("its storage '{}' is missing", crate::error::printable(key)))?;
    let (dtype, size) = &tensor.dtype;
    let unit = storage.dtype.as_ref().map_or(1, |(_, size)| *size);
    let expected = usize::try_from(storage.length).ok().and_then(|length| length.checked_mul(unit));
    if expected.is_none_or(|expected| bytes.len().checked_sub(expected).is_none_or(|rest| rest >= unit)) {
        let (length, found) = (storage.length, bytes.len());
        return Err(format!("its storage has {found} bytes, expected {length} elements of {unit} bytes"));
    }
    let natural =
        |numbers: &[i64]| numbers.iter().map(|&number| usize::try_from(number).ok()).collect::<Option<Vec<_>>>();
    let negative =
        || format!("negative sizes: offset {}, shape {:?}, strides {:?}", tensor.offset, tensor.shape, tensor.strides);
    let offset = usize::try_from(tensor.offset).map_err(|_| negative())?;
    let (shape, strides) = natural(&tensor.shape).zip(natural(&tensor.strides)).ok_or_else(negative)?;
    let mut view = View { shape, strides, offset };
    let available = bytes.len() / size;
    let Some((start, length)) = storage.part else {
        view.check(available)?;
        return Ok(Place { key, dtype, view });
    };
    let part = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    let (start, length) =
        part.filter(|(start, length)| start.checked_add(*length).is_some_and(|end| end <= available)).ok_or_else(
            || format!("a part of {length} from {start} reaches outside its storage of {available} elements"),
        )?;
    view.check(length)?;
    view.offset = view.offset.saturating_add(start);
    Ok(Place { key, dtype, view })
}

#[cfg(test)]
mod tests;
