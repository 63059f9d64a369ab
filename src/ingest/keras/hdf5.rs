//! HDF5 as far as Keras needs it, over the `hdf5-reader` crate: groups, strings, floating-point arrays.
//!
//! Of the two pure Rust readers this one was chosen because it bounds every allocation by the bytes that
//! are there or by a limit given here, bounds and detects link loops, and resolves nothing outside the file
//! unless a resolver is given: the ones given here refuse. Virtual data sets it does not know.

use std::sync::Arc;

use bytes::Bytes;
use hdf5_reader::group::Group;
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{Attribute, ByteOrder as FileOrder, Dataset, Datatype, Hdf5File, OpenOptions};
use hdf5_reader::{ExternalFileResolver, ExternalLinkResolver};

use super::super::ModelFile;
use super::super::tensor::{ByteOrder, Element, elements};
use crate::error::{Result, printable};

/// What every HDF5 file has at byte 0, 512, 1024, 2048, ...
pub(super) const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// The largest decoded chunk. Keras and h5py write chunks of some MiB at most.
const LARGEST_CHUNK: usize = 64 << 20;

/// All arrays of a file together may hold four times the file's bytes and this: compressed weights shrink
/// little, and chunks that were never written declare bytes that are nowhere.
const UNBACKED: u64 = 64 << 20;

/// Opens the HDF5 file in `bytes`, which are those of `file` or stand in it.
///
/// # Errors
/// Contents that are no HDF5.
pub(super) fn open(file: &ModelFile, bytes: Bytes) -> Result<(Group, Budget)> {
    let budget = Budget { left: (bytes.len() as u64).saturating_mul(4).saturating_add(UNBACKED) };
    let options = OpenOptions::default()
        .with_external_file_resolver(Arc::new(Refuse))
        .with_external_link_resolver(Arc::new(Refuse))
        .with_chunk_cache_bytes(0)
        .with_max_chunk_bytes(LARGEST_CHUNK)
        .with_max_read_bytes(usize::try_from(budget.left).unwrap_or(usize::MAX));
    let root = Hdf5File::from_owner(bytes, options).and_then(|hdf5| hdf5.root_group());
    Ok((root.map_err(|e| file.invalid("", format!("HDF5: {}", printable(&e.to_string()))))?, budget))
}

/// How many bytes of arrays may still be read.
pub(super) struct Budget {
    left: u64,
}

/// Refuses whatever leads out of the file.
struct Refuse;

impl ExternalFileResolver for Refuse {
    fn resolve_external_file(&self, name: &str) -> hdf5_reader::error::Result<Option<DynStorage>> {
        Err(hdf5_reader::error::Error::Other(format!("refused: the data are in another file, '{}'", printable(name))))
    }
}

impl ExternalLinkResolver for Refuse {
    fn resolve_external_link(&self, name: &str) -> hdf5_reader::error::Result<Option<Hdf5File>> {
        Err(hdf5_reader::error::Error::Other(format!("refused: a link into another file, '{}'", printable(name))))
    }
}

/// The attribute `name` of `group`, if it is there.
///
/// # Errors
/// Attributes that cannot be read.
fn attribute(file: &ModelFile, group: &Group, name: &str) -> Result<Option<Attribute>> {
    let attributes = group.attributes().map_err(|e| at_fault(file, group.name(), &e))?;
    Ok(attributes.into_iter().find(|attribute| attribute.name == name))
}

/// A text attribute, if it is there.
///
/// # Errors
/// An attribute that is no text.
pub(super) fn text(file: &ModelFile, group: &Group, name: &str) -> Result<Option<String>> {
    let Some(attribute) = attribute(file, group, name)? else { return Ok(None) };
    attribute.read_string().map(Some).map_err(|e| at_fault(file, &format!("attribute {name} of {}", group.name()), &e))
}

/// A list of texts in an attribute, or in attributes `name0`, `name1`, ... where it is too long for one, as
/// Keras splits it; `None` if there is neither.
///
/// # Errors
/// Attributes that are no lists of texts.
pub(super) fn texts(file: &ModelFile, group: &Group, name: &str) -> Result<Option<Vec<String>>> {
    let attributes = group.attributes().map_err(|e| at_fault(file, group.name(), &e))?;
    let read = |name: &str| -> Result<Option<Vec<String>>> {
        let Some(attribute) = attributes.iter().find(|attribute| attribute.name == name) else { return Ok(None) };
        // An empty list has no element type: h5py writes it as floating-point.
        if attribute.shape.contains(&0) {
            return Ok(Some(Vec::new()));
        }
        let at = || format!("attribute {name} of {}", group.name());
        let count = attribute.num_elements().map_err(|e| at_fault(file, &at(), &e))?;
        let texts = attribute.read_strings().map_err(|e| at_fault(file, &at(), &e))?;
        match texts.len() as u64 == count {
            true => Ok(Some(texts)),
            false => Err(file.invalid(at(), format!("declares {count} texts, holds {}", texts.len()))),
        }
    };
    if let Some(texts) = read(name)? {
        return Ok(Some(texts));
    }
    let mut all = None;
    for chunk in 0usize.. {
        match read(&format!("{name}{chunk}"))? {
            Some(texts) => all.get_or_insert_with(Vec::new).extend(texts),
            None => break,
        }
    }
    Ok(all)
}

/// The group at `path`, parts joined by slashes.
///
/// # Errors
/// A group that is not there or cannot be read.
pub(super) fn group(file: &ModelFile, parent: &Group, path: &str) -> Result<Group> {
    let mut group = parent.clone();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        group = group.group(part).map_err(|e| at_fault(file, path, &e))?;
    }
    Ok(group)
}

/// The data set at `path`, parts joined by slashes.
///
/// # Errors
/// A data set that is not there or cannot be read.
pub(super) fn dataset(file: &ModelFile, parent: &Group, path: &str) -> Result<Dataset> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    group(file, parent, folder)?.dataset(name).map_err(|e| at_fault(file, path, &e))
}

/// The names of a group's groups and of its data sets. Where the file keeps only an alphabetical order,
/// numbers within the names count as numbers: `conv2d_2` comes before `conv2d_10`.
///
/// # Errors
/// A group that cannot be read.
pub(super) fn members(file: &ModelFile, group: &Group) -> Result<(Vec<String>, Vec<String>)> {
    let (mut groups, mut datasets) = group.member_names().map_err(|e| at_fault(file, group.name(), &e))?;
    for names in [&mut groups, &mut datasets] {
        if names.is_sorted() {
            names.sort_by_cached_key(|name| natural_key(name));
        }
    }
    Ok((groups, datasets))
}

/// Text and numbers in turn.
fn natural_key(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (digits, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        key.push((text.to_owned(), digits.parse().unwrap_or(if digits.is_empty() { 0 } else { u64::MAX })));
        rest = tail;
    }
    key
}

/// The lengths of a data set's dimensions.
///
/// # Errors
/// Lengths that do not fit this machine, or whose product does not.
pub(super) fn shape(file: &ModelFile, at: &str, dataset: &Dataset) -> Result<Vec<usize>> {
    let lengths = dataset.shape().iter().map(|&length| usize::try_from(length).ok()).collect::<Option<Vec<_>>>();
    let lengths = lengths.filter(|lengths| elements(lengths).is_some());
    lengths.ok_or_else(|| file.invalid(at, format!("the size of shape {:?} overflows", dataset.shape())))
}

/// A data set's element type and byte order, if it is floating-point of a layout that is known.
///
/// # Errors
/// A data set that cannot be read.
pub(super) fn float(file: &ModelFile, at: &str, dataset: &Dataset) -> Result<Option<(Element, ByteOrder)>> {
    let order = match dataset.dtype() {
        Datatype::FloatingPoint { byte_order: FileOrder::BigEndian, .. } => ByteOrder::Big,
        Datatype::FloatingPoint { .. } => ByteOrder::Little,
        // Keras writes bfloat16, which NumPy does not know, as opaque bytes.
        Datatype::Opaque { size: 2, .. } => {
            let marked = dataset.attributes().iter().find(|attribute| attribute.name == "dtype").cloned();
            let bfloat16 = marked.is_some_and(|attribute| attribute.read_string().is_ok_and(|name| name == "bfloat16"));
            return Ok(bfloat16.then_some((Element::Bf16, ByteOrder::Little)));
        }
        _ => return Ok(None),
    };
    let raw = dataset.raw_datatype().map_err(|e| at_fault(file, at, &e))?;
    // Bit offset and precision (u16), exponent's place and size, mantissa's place and size, bias (u32). The
    // second bit of the byte order marks the VAX's.
    let element = match raw.get(8..20) {
        _ if raw.get(1).is_none_or(|flags| flags & 0x40 != 0) => None,
        Some([0, 0, 16, 0, 10, 5, 0, 10, 15, 0, 0, 0]) => Some(Element::F16),
        Some([0, 0, 16, 0, 7, 8, 0, 7, 127, 0, 0, 0]) => Some(Element::Bf16),
        Some([0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]) => Some(Element::F32),
        Some([0, 0, 64, 0, 52, 11, 0, 52, 0xff, 3, 0, 0]) => Some(Element::F64),
        _ => None,
    };
    Ok(element
        .filter(|element| dataset.raw_element_size().is_ok_and(|size| size == element.size()))
        .map(|e| (e, order)))
}

/// A data set's values in row-major order.
///
/// # Errors
/// A data set larger than the file justifies, or that cannot be read.
pub(super) fn values(
    file: &ModelFile,
    at: &str,
    dataset: &Dataset,
    (element, order): (Element, ByteOrder),
    budget: &mut Budget,
) -> Result<Vec<f32>> {
    let declared = dataset.raw_byte_len().map_err(|e| at_fault(file, at, &e))?;
    budget.left = budget.left.checked_sub(declared as u64).ok_or_else(|| {
        file.invalid(at, format!("declares {declared} bytes, too many for a file of {} bytes", file.bytes().len()))
    })?;
    let bytes = dataset.read_raw_bytes().map_err(|e| at_fault(file, at, &e))?;
    Ok(element.decode(&bytes, order))
}

fn at_fault(file: &ModelFile, at: &str, error: &hdf5_reader::error::Error) -> crate::error::Error {
    file.invalid(at, format!("HDF5: {}", printable(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::natural_key;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["conv2d_10", "conv2d_2", "conv2d", "block1_conv2", "block1_conv10", "conv2d_1"];
        names.sort_by_cached_key(|name| natural_key(name));
        assert_eq!(names, ["block1_conv2", "block1_conv10", "conv2d", "conv2d_1", "conv2d_2", "conv2d_10"]);
    }
}
