//! safetensors: a length, a JSON header, and the tensors' bytes back to back.
//!
//! The element types are those of the `safetensors` crate. The header is read here, in one pass and in
//! the file's own order: the crate's parser keeps the last of two equal keys, does not say which tensor
//! is at fault, and needs over 500 bytes of memory per tensor.

use std::collections::HashMap;
use std::fmt;

use safetensors::Dtype as FileType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};

use super::state_dict::{Named, Owner, convolutions};
use super::tensor::{ByteOrder, Dtype, Element, elements};
use super::{Model, ModelFile, ModelReader};
use crate::error::{Result, printable};

/// The reader of `.safetensors` files. Depth is the order of the tensors in the header, which is also
/// the order of their bytes in what the usual writers make (sorted by element size, then by name).
#[derive(Debug)]
pub struct Safetensors;

/// The longest header that the format's reference implementation accepts.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes of the length field in front of the header.
const LENGTH: usize = 8;

impl ModelReader for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["safetensors"]
    }

    fn sniff(&self, bytes: &[u8]) -> bool {
        // A JSON object right behind the length: no other format here has `{` there.
        bytes.get(LENGTH) == Some(&b'{')
    }

    fn read(&self, file: &ModelFile) -> Result<Model> {
        if ends_as_zip(file.bytes()) {
            return Err(file.invalid("", "both a safetensors file and a zip archive: ambiguous"));
        }
        let (header, data) = split(file)?;
        let header = header.ok_or_else(|| file.invalid("", "the header is not UTF-8"))?;
        let mut parser = serde_json::Deserializer::from_str(header);
        let parsed = HeaderSeed.deserialize(&mut parser).and_then(|parsed| parser.end().map(|()| parsed));
        let parsed: Header = parsed.map_err(|e| file.invalid("", format!("header: {e}")))?;
        check_spans(file, &parsed.tensors, data.len())?;
        let mut model = convolutions(file, &parsed.tensors, |tensor| {
            let span = data.get(tensor.place.start..tensor.place.end);
            let span = span.ok_or_else(|| file.invalid(&tensor.name, "its bytes are not in the file"))?;
            let Dtype::Readable(element) = tensor.dtype else {
                return Err(file.invalid(&tensor.name, "its values cannot be read"));
            };
            Ok(element.decode(span, ByteOrder::Little))
        })?;
        model.producer = Some(match parsed.format {
            Some(format) => format!("safetensors ({})", printable(&format)),
            None => "safetensors".to_owned(),
        });
        Ok(model)
    }
}

/// The header's text (`None` if it is not UTF-8) and the bytes behind it.
fn split(file: &ModelFile) -> Result<(Option<&str>, &[u8])> {
    let bytes: &[u8] = file.bytes();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(file.invalid("", format!("expected a header length of {LENGTH} bytes, found {}", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(file.invalid("", format!("a header of {length} bytes is longer than {LONGEST_HEADER}")));
    }
    let short = || file.invalid("", format!("a header of {length} bytes, but {} bytes are left", rest.len()));
    let (header, data) = usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at)).ok_or_else(short)?;
    Ok((std::str::from_utf8(header).ok(), data))
}

/// Where a tensor's bytes are, from the end of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span {
    start: usize,
    end: usize,
}

struct Header {
    /// `__metadata__.format`.
    format: Option<String>,
    tensors: Vec<Named<Span>>,
}

/// Every byte behind the header belongs to exactly one tensor, and each tensor has as many as it needs.
fn check_spans(file: &ModelFile, tensors: &[Named<Span>], available: usize) -> Result<()> {
    let mut order: Vec<&Named<Span>> = tensors.iter().collect();
    order.sort_by_key(|tensor| (tensor.place.start, tensor.place.end));
    let mut end = 0;
    for tensor in order {
        let place = tensor.place;
        if place.start != end {
            let found = if place.start < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(file.invalid(&tensor.name, format!("{found}: expected offset {end}, found {}", place.start)));
        }
        end = place.end;
    }
    if end != available {
        return Err(file.invalid("", format!("the tensors end at byte {end}, but {available} bytes follow the header")));
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(file.invalid(pair[0], "two tensors of this name")),
        None => Ok(()),
    }
}

/// One entry of the header, as JSON has it.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: std::borrow::Cow<'a, str>,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry<'_> {
    fn into_tensor(self, name: String) -> Result<Named<Span>, String> {
        let usizes =
            |values: &[u64]| values.iter().map(|&value| usize::try_from(value).ok()).collect::<Option<Vec<_>>>();
        let shape = usizes(&self.shape).ok_or_else(|| format!("shape {:?} is too large", self.shape))?;
        let (start, end) = self.data_offsets;
        let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err(format!("offsets {start} to {end} are too large"));
        };
        let length =
            end.checked_sub(start).ok_or_else(|| format!("begins at byte {start} and ends before, at {end}"))?;
        let file_type = file_type(&self.dtype)?;
        let bits = elements(&shape).and_then(|elements| elements.checked_mul(file_type.bitsize()));
        let bits = bits.ok_or_else(|| format!("the size of shape {shape:?} overflows"))?;
        if bits % 8 != 0 || bits / 8 != length {
            let needed = bits.div_ceil(8);
            return Err(format!("{} of shape {shape:?} needs {needed} bytes, found a span of {length}", self.dtype));
        }
        let dtype = dtype(file_type, &self.dtype);
        Ok(Named { name, dtype, shape, owner: Owner::Unknown, place: Span { start, end } })
    }
}

/// The crate's type of this name.
fn file_type(name: &str) -> Result<FileType, String> {
    let plain = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
    FileType::deserialize(plain).map_err(|_| format!("unknown element type '{}'", printable(name)))
}

fn dtype(file_type: FileType, name: &str) -> Dtype {
    match file_type {
        FileType::F16 => Dtype::Readable(Element::F16),
        FileType::BF16 => Dtype::Readable(Element::Bf16),
        FileType::F32 => Dtype::Readable(Element::F32),
        FileType::F64 => Dtype::Readable(Element::F64),
        FileType::I8 => Dtype::Readable(Element::I8),
        FileType::U8 => Dtype::Readable(Element::U8),
        // F8_E4M3, F8_E5M2, F4 and their kin.
        _ if name.starts_with('F') => Dtype::UnreadableFloat(name.to_owned()),
        _ => Dtype::Other(name.to_owned()),
    }
}

/// Reads the header entry by entry, so that no copy of the whole JSON tree is ever held.
struct HeaderSeed;

impl<'de> DeserializeSeed<'de> for HeaderSeed {
    type Value = Header;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed {
    type Value = Header;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { format: None, tensors: Vec::new() };
        let mut metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(A::Error::custom("two entries '__metadata__'"));
                }
                let mut found: HashMap<String, String> = map.next_value()?;
                header.format = found.remove("format");
            } else {
                let entry: Entry<'de> = map
                    .next_value()
                    .map_err(|e| A::Error::custom(format_args!("tensor '{}': {e}", printable(&name))))?;
                let shown = printable(&name);
                let tensor = entry.into_tensor(name);
                header.tensors.push(tensor.map_err(|e| A::Error::custom(format_args!("tensor '{shown}': {e}")))?);
            }
        }
        Ok(header)
    }
}

/// Whether the file ends with a zip archive's end record, whose comment reaches exactly to the end.
fn ends_as_zip(bytes: &[u8]) -> bool {
    const RECORD: usize = 22;
    let tail = bytes.get(bytes.len().saturating_sub(RECORD + usize::from(u16::MAX))..).unwrap_or(bytes);
    tail.windows(RECORD).enumerate().any(|(at, record)| {
        let comment = u16::from_le_bytes([record[20], record[21]]);
        record.starts_with(b"PK\x05\x06") && at + RECORD + usize::from(comment) == tail.len()
    })
}

#[cfg(test)]
mod tests;
