//! The protobuf wire format, as far as it must be looked at before prost decodes a message: to tell an ONNX
//! model from other files, and to refuse one whose messages would need far more memory than its bytes.

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto,
    TensorProto, ValueInfoProto,
};

/// Decoded messages, without tensor data, may take this many bytes. Two bytes on the wire can be an empty
/// message of 200 in memory, so the file's length is no bound; this one is met by graphs of 10^5 nodes.
const LARGEST: usize = 128 << 20;

/// Messages within messages; prost itself stops at 100. A control flow body within another is 3 deeper.
const DEEPEST: usize = 96;

/// A field of a message.
pub struct Field<'a> {
    number: u64,
    payload: Payload<'a>,
}

enum Payload<'a> {
    Varint(u64),
    Fixed,
    /// The bytes, and how many there should be.
    Delimited(&'a [u8], u64),
}

/// Takes the next field off `rest`; `None` at its end. A payload that the file ends in is cut.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Result<Field<'a>, String>> {
    (!rest.is_empty()).then(|| field(rest))
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, String> {
    let tag = varint(rest)?;
    let payload = match tag & 7 {
        0 => Payload::Varint(varint(rest)?),
        1 => fixed(rest, 8)?,
        2 => {
            let length = varint(rest)?;
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            Payload::Delimited(take(rest, here).unwrap_or_default(), length)
        }
        5 => fixed(rest, 4)?,
        other => return Err(format!("expected a protobuf field, found wire type {other}")),
    };
    Ok(Field { number: tag >> 3, payload })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(count)?;
    *rest = back;
    Some(front)
}

fn fixed<'a>(rest: &mut &'a [u8], count: usize) -> Result<Payload<'a>, String> {
    take(rest, count).map(|_| Payload::Fixed).ok_or_else(|| "the file is cut within a number".to_owned())
}

/// Takes a varint of at most 10 bytes and 64 bits off `rest`.
///
/// # Errors
/// Where it is longer, or `rest` ends in it.
pub fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for (i, &byte) in rest.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = rest.get(i + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { "the file is cut within a number" } else { "a varint is longer than 64 bits" }.to_owned())
}

/// Whether `bytes` begin like a ModelProto: top-level fields of it only, each of its wire type, among them an IR
/// version and a graph that itself begins with a field of a GraphProto. A file cut within its graph passes:
/// it is an ONNX model, and broken.
pub fn is_model(bytes: &[u8]) -> bool {
    /// Opsets, metadata and functions may stand before the graph; no model has more of them.
    const FIELDS: usize = 100_000;
    let mut rest = bytes;
    let (mut version, mut graph) = (false, false);
    for _ in 0..FIELDS {
        let Some(field) = next_field(&mut rest) else { break };
        let Ok(Field { number, payload }) = field else { return false };
        match (number, payload) {
            (1, Payload::Varint(value)) => {
                if !(1..=1000).contains(&value) {
                    return false;
                }
                version = true;
            }
            (5, Payload::Varint(_)) => {}
            (7, Payload::Delimited(mut content, _)) => {
                let Some(Ok(first)) = next_field(&mut content) else { return false };
                if !matches!((first.number, first.payload), (1 | 2 | 5 | 10..=16, Payload::Delimited(..))) {
                    return false;
                }
                graph = true;
            }
            (2 | 3 | 4 | 6 | 8 | 14 | 20 | 25 | 26, Payload::Delimited(..)) => {}
            _ => return false,
        }
    }
    version && graph
}

/// The messages of `onnx.proto` in which others, strings or numbers are repeated.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    ValueInfo,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Entry,
    Function,
}

/// What decoding makes of a field.
enum Decoded {
    Message(Message),
    Text,
    Integers,
    /// Skipped, or a slice of the file.
    Nothing,
}

impl Message {
    fn size(self) -> usize {
        match self {
            Message::Model => size_of::<ModelProto>(),
            Message::Graph => size_of::<GraphProto>(),
            Message::ValueInfo => size_of::<ValueInfoProto>(),
            Message::Node => size_of::<NodeProto>(),
            Message::Attribute => size_of::<AttributeProto>(),
            Message::Tensor => size_of::<TensorProto>(),
            Message::Sparse => size_of::<SparseTensorProto>(),
            Message::Entry => size_of::<StringStringEntryProto>(),
            Message::Function => size_of::<FunctionProto>(),
        }
    }

    /// The fields of [`super::proto`].
    fn field(self, number: u64) -> Decoded {
        match (self, number) {
            (Message::Model, 7) | (Message::Attribute, 6 | 11) => Decoded::Message(Message::Graph),
            (Message::Model, 25) => Decoded::Message(Message::Function),
            (Message::Graph, 1) | (Message::Function, 7) => Decoded::Message(Message::Node),
            (Message::Graph, 5) | (Message::Attribute, 5) | (Message::Sparse, 1) => Decoded::Message(Message::Tensor),
            (Message::Graph, 11 | 12) => Decoded::Message(Message::ValueInfo),
            (Message::Graph, 15) => Decoded::Message(Message::Sparse),
            (Message::Node, 5) | (Message::Function, 11) => Decoded::Message(Message::Attribute),
            (Message::Tensor, 13) => Decoded::Message(Message::Entry),
            (Message::Node, 1..=4 | 7 | 8) | (Message::Function, 1 | 4 | 5 | 10 | 13) => Decoded::Text,
            (Message::Attribute, 1 | 21) | (Message::Tensor, 8) | (Message::ValueInfo, 1) => Decoded::Text,
            // Runs of packed numbers are kept as slices, but one slice each.
            (Message::Entry, 1 | 2) | (Message::Tensor, 4 | 5 | 7 | 10) => Decoded::Text,
            (Message::Attribute, 8) | (Message::Tensor, 1) => Decoded::Integers,
            _ => Decoded::Nothing,
        }
    }
}

/// Checks that every field of the model in `bytes` is whole, that messages are not nested too deep, and that
/// decoding them needs no more than [`LARGEST`] bytes beside the tensors.
///
/// # Errors
/// What is wrong, in words.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut needed = 0_usize;
    check_message(bytes, Message::Model, 1, &mut needed)
}

fn check_message(mut rest: &[u8], message: Message, depth: usize, needed: &mut usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("messages are nested deeper than {DEEPEST}"));
    }
    charge(needed, message.size())?;
    while let Some(field) = next_field(&mut rest) {
        let Field { number, payload } = field?;
        if let Payload::Delimited(content, length) = &payload
            && *length > content.len() as u64
        {
            return Err(format!("a field of {length} bytes is cut after {}", content.len()));
        }
        match (message.field(number), payload) {
            (Decoded::Message(inner), Payload::Delimited(content, _)) => {
                check_message(content, inner, depth + 1, needed)?;
            }
            // An allocation of its own takes 32 bytes even for one byte.
            (Decoded::Text, Payload::Delimited(content, _)) => charge(needed, 32 + content.len().min(32))?,
            (Decoded::Integers, Payload::Delimited(content, _)) => charge(needed, content.len().saturating_mul(8))?,
            (Decoded::Integers, _) => charge(needed, 8)?,
            _ => {}
        }
    }
    Ok(())
}

fn charge(needed: &mut usize, bytes: usize) -> Result<(), String> {
    *needed = needed.saturating_add(bytes);
    if *needed > LARGEST {
        return Err(format!("its nodes, attributes and names need more than {} MiB", LARGEST >> 20));
    }
    Ok(())
}
