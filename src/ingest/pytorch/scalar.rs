//! The bytes of a pickle: lengths, lines, and the opcodes that stand for a scalar.

use std::borrow::Cow;

use super::value::Value;
use crate::error::printable;

/// Reads a pickle's bytes from the start on; never past the end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes left to read.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The value of an opcode that pushes a scalar.
    ///
    /// # Errors
    /// Any other opcode; a value that is cut or malformed.
    pub(super) fn scalar(&mut self, opcode: u8) -> Result<Value<'a>, String> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            0x8a => {
                let length = usize::from(self.byte()?);
                long(self.take(length)?)
            }
            0x8b => {
                let length = i32::from_le_bytes(self.array()?);
                let length = usize::try_from(length).map_err(|_| format!("a LONG4 of {length} bytes"))?;
                long(self.take(length)?)
            }
            b'I' => match self.line()? {
                "00" | "01" => Value::Bool,
                text => decimal_value(text)?,
            },
            b'L' => {
                let text = self.line()?;
                decimal_value(text.strip_suffix('L').unwrap_or(text))?
            }
            b'F' => {
                let text = self.line()?;
                text.parse::<f64>().map_err(|_| format!("expected a number, found '{}'", printable(text)))?;
                Value::Number
            }
            b'G' => {
                self.array::<8>()?;
                Value::Number
            }
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'B' => self.raw::<4>()?,
            b'C' => self.raw::<1>()?,
            0x8e | 0x96 => self.raw::<8>()?,
            // Strings of Python 2: text where they are text.
            b'T' => native(self.length::<4>().and_then(|length| self.take(length))?),
            b'U' => native(self.length::<1>().and_then(|length| self.take(length))?),
            b'S' => Value::Str(quoted(self.line()?)?),
            b'V' => Value::Str(unescaped(self.line()?)?),
            _ => return Err(format!("{opcode:#04x} is no pickle opcode")),
        })
    }

    fn text<const N: usize>(&mut self) -> Result<Value<'a>, String> {
        let length = self.length::<N>()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a string that is not UTF-8".to_owned())?;
        Ok(Value::Str(Cow::Borrowed(text)))
    }

    fn raw<const N: usize>(&mut self) -> Result<Value<'a>, String> {
        let length = self.length::<N>()?;
        self.take(length)?;
        Ok(Value::Bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or_else(|| match rest.is_empty() {
            true => "the pickle ends without STOP".to_owned(),
            false => format!("expected {length} bytes, {} are left", rest.len()),
        })?;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, _) = self.take(N)?.split_first_chunk::<N>().ok_or("too short")?;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length of `N` bytes, little-endian.
    pub(super) fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let bytes = self.array::<N>()?;
        let length = bytes.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        usize::try_from(length).map_err(|_| format!("a length of {length}"))
    }

    /// The text up to the next line feed.
    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("the pickle ends within a line")?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "a line that is not UTF-8".to_owned())
    }
}

/// A two's complement little-endian integer.
fn long(bytes: &[u8]) -> Value<'static> {
    let sign = if bytes.last().is_some_and(|&top| top & 0x80 != 0) { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    if high.iter().any(|&byte| byte != sign) {
        return Value::Number;
    }
    let mut padded = [sign; 8];
    padded[..low.len()].copy_from_slice(low);
    let value = i64::from_le_bytes(padded);
    // The sign byte of the eight must agree with that of the whole.
    if (value < 0) == (sign == 0xff) { Value::Int(value) } else { Value::Number }
}

fn decimal_value(text: &str) -> Result<Value<'static>, String> {
    if let Ok(value) = text.trim().parse() {
        return Ok(Value::Int(value));
    }
    let digits = text.trim().trim_start_matches(['-', '+']);
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(Value::Number),
        false => Err(format!("expected an integer, found '{}'", printable(text))),
    }
}

fn native(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes, |text| Value::Str(Cow::Borrowed(text)))
}

/// A string between quotes; escapes within are those of Python and only simple ones are needed.
fn quoted(text: &str) -> Result<Cow<'_, str>, String> {
    let inner = ['\'', '"'].iter().find_map(|&quote| text.strip_prefix(quote)?.strip_suffix(quote));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        Some(_) => Err("a quoted string with escapes".to_owned()),
        None => Err("a quoted string without its quotes".to_owned()),
    }
}

/// A line of raw-unicode-escape text: `\uXXXX` and `\UXXXXXXXX` stand for characters.
fn unescaped(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains("\\u") && !text.contains("\\U") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\u").into_iter().chain(rest.find("\\U")).min() {
        out.push_str(rest.get(..at).unwrap_or_default());
        let digits = if rest.get(at..at + 2) == Some("\\u") { 4 } else { 8 };
        let code = rest.get(at + 2..at + 2 + digits).ok_or("a cut character escape")?;
        let character = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        out.push(character.ok_or_else(|| format!("no character '{}'", printable(code)))?);
        rest = rest.get(at + 2 + digits..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}
