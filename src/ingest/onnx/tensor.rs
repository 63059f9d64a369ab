//! Constant tensors: their checks, and their elements as float32.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use half::{bf16, f16};

use super::proto::TensorProto;
use super::wire::varint;
use crate::error::{Result, printable};
use crate::ingest::ModelFile;

/// A tensor's element type, by its number in `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataType(pub i32);

impl DataType {
    pub const FLOAT: Self = DataType(1);
    pub const UINT8: Self = DataType(2);
    pub const INT8: Self = DataType(3);
    pub const UINT16: Self = DataType(4);
    pub const INT16: Self = DataType(5);
    pub const INT32: Self = DataType(6);
    pub const INT64: Self = DataType(7);
    pub const FLOAT16: Self = DataType(10);
    pub const DOUBLE: Self = DataType(11);
    pub const BFLOAT16: Self = DataType(16);

    /// Bytes of an element; `None` for types that this reader takes no numbers from (strings, booleans, complex
    /// numbers, 4-bit and 8-bit floats, ...).
    pub fn size(self) -> Option<usize> {
        match self {
            Self::UINT8 | Self::INT8 => Some(1),
            Self::UINT16 | Self::INT16 | Self::FLOAT16 | Self::BFLOAT16 => Some(2),
            Self::FLOAT | Self::INT32 => Some(4),
            Self::INT64 | Self::DOUBLE => Some(8),
            _ => None,
        }
    }

    /// Whether a convolution can have weights of this type as they are.
    pub fn is_float(self) -> bool {
        matches!(self, Self::FLOAT | Self::FLOAT16 | Self::BFLOAT16 | Self::DOUBLE)
    }

    /// The least and largest value of an integer type.
    pub fn integers(self) -> Option<(i64, i64)> {
        match self {
            Self::UINT8 => Some((0, i64::from(u8::MAX))),
            Self::INT8 => Some((i64::from(i8::MIN), i64::from(i8::MAX))),
            Self::UINT16 => Some((0, i64::from(u16::MAX))),
            Self::INT16 => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
            Self::INT32 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
            Self::INT64 => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }

    /// The name in the ONNX standard.
    pub fn name(self) -> Cow<'static, str> {
        const NAMES: [&str; 24] = [
            "UNDEFINED",
            "FLOAT",
            "UINT8",
            "INT8",
            "UINT16",
            "INT16",
            "INT32",
            "INT64",
            "STRING",
            "BOOL",
            "FLOAT16",
            "DOUBLE",
            "UINT32",
            "UINT64",
            "COMPLEX64",
            "COMPLEX128",
            "BFLOAT16",
            "FLOAT8E4M3FN",
            "FLOAT8E4M3FNUZ",
            "FLOAT8E5M2",
            "FLOAT8E5M2FNUZ",
            "UINT4",
            "INT4",
            "FLOAT4E2M1",
        ];
        match usize::try_from(self.0).ok().and_then(|i| NAMES.get(i)) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("data type {}", self.0)),
        }
    }

    /// `value` rounded to this type, where it is a narrower float.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::FLOAT16 => f16::from_f32(value).to_f32(),
            Self::BFLOAT16 => bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }
}

/// Dims of a tensor: those of numpy, in which every ONNX exporter thinks.
pub const MOST_DIMS: usize = 64;

/// The tensors of a file that have been looked at. A tensor can be used by any number of nodes, and its check may
/// have to look at each byte: it is done once.
#[derive(Debug)]
pub struct Tensors<'a> {
    file: &'a ModelFile,
    known: RefCell<HashMap<usize, Rc<Tensor>>>,
}

impl<'a> Tensors<'a> {
    /// None yet of `file`.
    pub fn new(file: &'a ModelFile) -> Self {
        Tensors { file, known: RefCell::default() }
    }

    /// The tensor in `proto`, which messages call `name`.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn get(&self, proto: &TensorProto, name: &str) -> Result<Rc<Tensor>> {
        let address = std::ptr::from_ref(proto).addr();
        if let Some(tensor) = self.known.borrow().get(&address) {
            return Ok(Rc::clone(tensor));
        }
        let tensor = Rc::new(Tensor::new(self.file, proto, name)?);
        self.known.borrow_mut().insert(address, Rc::clone(&tensor));
        Ok(tensor)
    }
}

/// A constant tensor whose size has been checked against the bytes that are there.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data_type: DataType,
    elements: Elements,
}

/// Where the elements are: slices of the file, or of one beside it.
#[derive(Debug, Clone)]
enum Elements {
    /// Little-endian, of the data type's size.
    Fixed(Vec<Bytes>),
    /// Varints.
    Varints(Vec<Bytes>),
    /// Of a type without numbers.
    Opaque,
}

impl Tensor {
    /// Checks `proto`, which messages call `name`, and finds its elements, without reading them.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) for dims that are negative or overflow, elements that are not as
    /// many as dims say, in two places or in the wrong one, and for external data that is not there.
    fn new(file: &ModelFile, proto: &TensorProto, name: &str) -> Result<Self> {
        let invalid = |reason: String| file.invalid(name, reason);
        let data_type = DataType(proto.data_type);
        let (shape, count) = shape(&proto.dims).map_err(invalid)?;
        let elements = elements(file, proto, name)?;
        let expected =
            |size: usize| count.checked_mul(size).ok_or_else(|| invalid(format!("the dims {:?} overflow", proto.dims)));
        match (&elements, data_type.size()) {
            (Elements::Fixed(runs), Some(size)) => {
                let (expected, found) = (expected(size)?, runs.iter().map(Bytes::len).sum::<usize>());
                if found != expected {
                    let (of, what) = (&proto.dims, data_type.name());
                    return Err(invalid(format!("expected {expected} bytes for {what} of dims {of:?}, found {found}")));
                }
                if runs.iter().any(|run| run.len() % size != 0) {
                    return Err(invalid("an element is cut between two runs".to_owned()));
                }
            }
            (Elements::Varints(runs), _) => {
                let found = runs.iter().flatten().filter(|&&byte| byte < 0x80).count();
                if found != count {
                    return Err(invalid(format!("expected {count} numbers for dims {:?}, found {found}", proto.dims)));
                }
            }
            _ => {}
        }
        Ok(Tensor { shape, data_type, elements })
    }

    /// Bytes of the file, or of one beside it, that hold the elements.
    pub fn stored_bytes(&self) -> usize {
        match &self.elements {
            Elements::Fixed(runs) | Elements::Varints(runs) => runs.iter().map(Bytes::len).sum(),
            Elements::Opaque => 0,
        }
    }

    /// The elements as float32, rounded to nearest, row-major.
    ///
    /// # Errors
    /// In words: elements that are no numbers, or out of their type's range.
    pub fn floats(&self) -> Result<Vec<f32>, String> {
        // An integer beyond 2^24 rounds; quantised weights and zero points never are.
        match (&self.elements, self.data_type) {
            (Elements::Fixed(runs), data_type) => match data_type {
                DataType::FLOAT => Ok(fixed(runs, f32::from_le_bytes)),
                DataType::DOUBLE => Ok(fixed(runs, |bytes| f64::from_le_bytes(bytes) as f32)),
                DataType::FLOAT16 => Ok(fixed(runs, |bytes| f16::from_le_bytes(bytes).to_f32())),
                DataType::BFLOAT16 => Ok(fixed(runs, |bytes| bf16::from_le_bytes(bytes).to_f32())),
                DataType::UINT8 => Ok(fixed(runs, |[byte]| f32::from(byte))),
                DataType::INT8 => Ok(fixed(runs, |bytes| f32::from(i8::from_le_bytes(bytes)))),
                DataType::UINT16 => Ok(fixed(runs, |bytes| f32::from(u16::from_le_bytes(bytes)))),
                DataType::INT16 => Ok(fixed(runs, |bytes| f32::from(i16::from_le_bytes(bytes)))),
                DataType::INT32 => Ok(fixed(runs, |bytes| i32::from_le_bytes(bytes) as f32)),
                DataType::INT64 => Ok(fixed(runs, |bytes| i64::from_le_bytes(bytes) as f32)),
                _ => Err(self.opaque()),
            },
            (Elements::Varints(runs), DataType::FLOAT16) => {
                numbers(runs, (0, i64::from(u16::MAX)), |bits| f16::from_bits(bits as u16).to_f32())
            }
            (Elements::Varints(runs), DataType::BFLOAT16) => {
                numbers(runs, (0, i64::from(u16::MAX)), |bits| bf16::from_bits(bits as u16).to_f32())
            }
            (Elements::Varints(runs), data_type) => match data_type.integers() {
                Some(range) => numbers(runs, range, |number| number as f32),
                None => Err(self.opaque()),
            },
            (Elements::Opaque, _) => Err(self.opaque()),
        }
    }

    /// The elements of an INT64 or INT32 tensor: shapes and axes.
    ///
    /// # Errors
    /// In words: another type, elements out of its range, or more than a tensor has dims.
    pub fn integers(&self) -> Result<Vec<i64>, String> {
        if self.shape.iter().product::<usize>() > MOST_DIMS {
            return Err(format!("expected at most {MOST_DIMS} numbers, found dims {:?}", self.shape));
        }
        match (&self.elements, self.data_type) {
            (Elements::Fixed(runs), DataType::INT64) => Ok(fixed(runs, i64::from_le_bytes)),
            (Elements::Fixed(runs), DataType::INT32) => Ok(fixed(runs, |bytes| i64::from(i32::from_le_bytes(bytes)))),
            (Elements::Varints(runs), DataType::INT64 | DataType::INT32) => {
                numbers(runs, self.data_type.integers().unwrap_or_default(), |number| number)
            }
            _ => Err(format!("expected INT64, found {}", self.data_type.name())),
        }
    }

    fn opaque(&self) -> String {
        format!("its elements are of the type {}, which is not read", self.data_type.name())
    }
}

/// `dims` as sizes, and their product.
fn shape(dims: &[i64]) -> Result<(Vec<usize>, usize), String> {
    if dims.len() > MOST_DIMS {
        return Err(format!("expected at most {MOST_DIMS} dims, found {}", dims.len()));
    }
    let sizes: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let sizes = sizes.ok_or_else(|| format!("expected dims of at least 0, found {dims:?}"))?;
    // With a 0 among them the others may still not overflow: the array types multiply in any order.
    sizes
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size.max(1)))
        .filter(|&product| product <= isize::MAX as usize)
        .ok_or_else(|| format!("the dims {dims:?} overflow"))?;
    let count = sizes.iter().product();
    Ok((sizes, count))
}

fn elements(file: &ModelFile, proto: &TensorProto, name: &str) -> Result<Elements> {
    let places = [
        ("raw_data", !proto.raw_data.is_empty()),
        ("float_data", !proto.float_data.is_empty()),
        ("int32_data", !proto.int32_data.is_empty()),
        ("int64_data", !proto.int64_data.is_empty()),
        ("double_data", !proto.double_data.is_empty()),
        ("external data", proto.data_location == 1),
    ];
    let used: Vec<&str> = places.iter().filter(|(_, used)| *used).map(|(place, _)| *place).collect();
    if let [one, other, ..] = used[..] {
        return Err(file.invalid(name, format!("has both {one} and {other}")));
    }
    if !matches!(proto.data_location, 0 | 1) {
        return Err(file.invalid(name, format!("expected data_location 0 or 1, found {}", proto.data_location)));
    }
    let place = used.first().copied().unwrap_or_default();
    let data_type = DataType(proto.data_type);
    let fits = match place {
        "float_data" => matches!(data_type, DataType::FLOAT | DataType(14)),
        "double_data" => matches!(data_type, DataType::DOUBLE | DataType(15)),
        "int64_data" => data_type == DataType::INT64,
        "int32_data" => !matches!(data_type, DataType::FLOAT | DataType::DOUBLE | DataType::INT64),
        _ => true,
    };
    if !fits {
        return Err(file.invalid(name, format!("{} cannot stand in {place}", data_type.name())));
    }
    let external = if proto.data_location == 1 { Some(external(file, proto, name)?) } else { None };
    Ok(match (data_type.size(), place) {
        (None, _) => Elements::Opaque,
        (_, "float_data") => Elements::Fixed(proto.float_data.clone()),
        (_, "double_data") => Elements::Fixed(proto.double_data.clone()),
        (_, "int32_data") => Elements::Varints(proto.int32_data.clone()),
        (_, "int64_data") => Elements::Varints(proto.int64_data.clone()),
        _ => Elements::Fixed(vec![external.unwrap_or_else(|| proto.raw_data.clone())]),
    })
}

/// The bytes of a tensor that stands in a file beside the model.
fn external(file: &ModelFile, proto: &TensorProto, name: &str) -> Result<Bytes> {
    let invalid = |reason: String| file.invalid(name, reason);
    let (mut location, mut offset, mut length, mut checksum) = (None, None, None, None);
    for entry in &proto.external_data {
        let place = match entry.key.as_str() {
            "location" => &mut location,
            "offset" => &mut offset,
            "length" => &mut length,
            // A SHA-1 of the whole file: optional, and written by no exporter.
            "checksum" => &mut checksum,
            other => {
                let expected = "expected the keys location, offset, length and checksum of external data";
                return Err(invalid(format!("{expected}, found '{}'", printable(other))));
            }
        };
        if place.replace(entry.value.as_str()).is_some() {
            return Err(invalid(format!("the key {} of external data stands twice", entry.key)));
        }
    }
    let location = location.ok_or_else(|| invalid("external data without a location".to_owned()))?;
    let number = |key: &str, text: Option<&str>| match text {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            invalid(format!("expected a number of bytes as {key} of external data, found '{}'", printable(text)))
        }),
    };
    let (offset, length) = (number("offset", offset)?.unwrap_or(0), number("length", length)?);
    let bytes = file.sibling(location)?;
    let size = bytes.len() as u64;
    let end = length.map_or(Some(size), |length| offset.checked_add(length));
    match end {
        // Both fit in usize: they are no larger than a length.
        Some(end) if offset <= end && end <= size => Ok(bytes.slice(offset as usize..end as usize)),
        _ => {
            let length = length.map_or_else(|| "the rest".to_owned(), |length| format!("{length} bytes"));
            let place = printable(location);
            Err(invalid(format!("expected {length} at offset {offset} of '{place}', which has {size} bytes")))
        }
    }
}

fn fixed<const N: usize, T>(runs: &[Bytes], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(runs.iter().map(Bytes::len).sum::<usize>() / N.max(1));
    for run in runs {
        values.extend(run.as_chunks().0.iter().map(|&bytes| decode(bytes)));
    }
    values
}

fn numbers<T>(runs: &[Bytes], (least, most): (i64, i64), decode: impl Fn(i64) -> T) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    for run in runs {
        let mut rest: &[u8] = run;
        while !rest.is_empty() {
            // Negative numbers are sign-extended to 64 bits.
            let number = varint(&mut rest)? as i64;
            if !(least..=most).contains(&number) {
                return Err(format!("expected numbers in {least}..={most}, found {number}"));
            }
            values.push(decode(number));
        }
    }
    Ok(values)
}
