//! A pickle machine that runs nothing: opcodes of protocols 0 to 5 build values, and calls are only
//! understood for the builders of tensors and containers (see [`super::globals`]).

use std::borrow::Cow;
use std::collections::HashMap;

use super::build;
use super::globals::{Meaning, meaning};
use super::scalar::Reader;
use super::value::{Global, Id, Value, Values};
use crate::error::printable;

/// Deepest stack and largest memo: as many entries as there can be values.
const MOST: usize = 3 << 20;

/// Reads one pickle at the start of `bytes` into `values`: the value that it leaves, and its length.
///
/// # Errors
/// Where in the pickle what was expected and what was found.
pub(super) fn load<'a>(bytes: &'a [u8], values: &mut Values<'a>) -> Result<(Id, usize), String> {
    let mut machine =
        Machine { bytes: Reader::new(bytes), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), values };
    loop {
        let at = machine.bytes.at();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(id)) => return Ok((id, machine.bytes.at())),
            Err(reason) => return Err(format!("pickle, byte {at}: {reason}")),
        }
    }
}

struct Machine<'a, 'v> {
    bytes: Reader<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at which a MARK lies.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    values: &'v mut Values<'a>,
}

impl<'a> Machine<'a, '_> {
    /// One opcode; the value at STOP.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let opcode = self.bytes.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // Protocol and frames.
            0x80 => match self.bytes.byte()? {
                0..=5 => {}
                version => return Err(format!("pickle protocol {version}, expected 0 to 5")),
            },
            0x95 => {
                // A frame is only a hint for buffering, but it must not lie.
                let length = self.bytes.length::<8>()?;
                let left = self.bytes.left();
                if length > left {
                    return Err(format!("a frame of {length} bytes, but {left} are left"));
                }
            }
            // Stack.
            b'(' => self.mark()?,
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            // Memo.
            b'p' => {
                let key = self.decimal()?;
                self.remember(key)?;
            }
            b'q' | b'r' => {
                let key = self.memo_key(opcode == b'r')?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'g' => {
                let key = self.decimal()?;
                self.recall(key)?;
            }
            b'h' | b'j' => {
                let key = self.memo_key(opcode == b'j')?;
                self.recall(key)?;
            }
            // Containers.
            b']' => self.push(Value::List(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x8f => self.push(Value::List(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let items = self.pop_many(count)?;
                self.push(Value::Tuple(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(pairs(&items)?))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            // Globals, instances, calls.
            b'c' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
                let id = self.global(module, name)?;
                self.push_id(id)?;
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let id = self.stack_global(&names)?;
                self.push_id(id)?;
            }
            b'R' | 0x81 => {
                let operands = self.pop_many(2)?;
                self.call(operands[0], operands[1], opcode == 0x81)?;
            }
            0x92 => {
                let operands = self.pop_many(3)?;
                self.call(operands[0], operands[1], true)?;
            }
            b'i' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
                let class = self.global(module, name)?;
                let arguments = self.pop_mark()?;
                self.call_with(class, arguments)?;
            }
            b'o' => {
                let mut arguments = self.pop_mark()?;
                if arguments.is_empty() {
                    return Err("OBJ without a class".to_owned());
                }
                let class = arguments.remove(0);
                self.call_with(class, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                build::set_state(self.values, target, state)?;
            }
            b'Q' => {
                let pid = self.pop()?;
                let id = build::persistent(self.values, pid)?;
                self.push_id(id)?;
            }
            b'P' => return Err("a persistent id in text form, which PyTorch does not write".to_owned()),
            0x82..=0x84 => return Err("an extension code: its meaning is not in the file".to_owned()),
            0x97 | 0x98 => return Err("an out-of-band buffer, which PyTorch does not write".to_owned()),
            _ => {
                let value = self.bytes.scalar(opcode)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<Id, String> {
        let global = Global { module, name };
        if meaning(global) == Meaning::Refused {
            return Err(format!("refused: it names {}, which no model needs", printable(&global.to_string())));
        }
        let index = u32::try_from(self.values.globals.len()).map_err(|e| e.to_string())?;
        self.values.globals.push(global);
        self.values.add(Value::Global(index))
    }

    fn stack_global(&mut self, names: &[Id]) -> Result<Id, String> {
        let text = |id: &Id| match self.values.get(*id) {
            Value::Str(Cow::Borrowed(text)) => Ok(*text),
            _ => Err(format!("a global must be named by two strings, found {}", self.values.kind(*id))),
        };
        match names {
            [module, name] => {
                let (module, name) = (text(module)?, text(name)?);
                self.global(module, name)
            }
            _ => Err("a global must be named by two strings".to_owned()),
        }
    }

    fn call_with(&mut self, callee: Id, arguments: Vec<Id>) -> Result<(), String> {
        let arguments = self.values.add(Value::Tuple(arguments))?;
        self.call(callee, arguments, true)
    }

    fn call(&mut self, callee: Id, arguments: Id, instance: bool) -> Result<(), String> {
        let id = build::call(self.values, callee, arguments, instance)?;
        self.push_id(id)
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        self.values.charge(items.len())?;
        match self.values.get_mut(target) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            // A subclass of a list: its contents are of no use here.
            Some(Value::Object(_)) => {}
            _ => return Err(format!("appends to {}, expected a list", self.values.kind(target))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        let pairs = pairs(items)?;
        self.values.charge(pairs.len())?;
        match self.values.get_mut(target) {
            Some(Value::Dict(dict)) => dict.extend(pairs),
            Some(Value::Object(object)) => object.items.extend(pairs),
            _ => return Err(format!("sets items of {}, expected a dict", self.values.kind(target))),
        }
        Ok(())
    }

    // The stack.

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let id = self.values.add(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= MOST {
            return Err(format!("more than {MOST} values on the stack"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), String> {
        if self.marks.len() >= MOST {
            return Err(format!("more than {MOST} marks on the stack"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".to_owned());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn top(&self) -> Result<Id, String> {
        let above = self.stack.get(self.floor()..).unwrap_or_default();
        above.last().copied().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        match self.stack.len().checked_sub(count) {
            Some(at) if at >= self.floor() => Ok(self.stack.split_off(at)),
            _ => Err(format!("expected {count} values on the stack")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let at = self.marks.pop().ok_or_else(|| "no mark on the stack".to_owned())?;
        if at > self.stack.len() {
            return Err("the stack is below its mark".to_owned());
        }
        Ok(self.stack.split_off(at))
    }

    // The memo.

    fn remember(&mut self, key: u64) -> Result<(), String> {
        let id = self.top()?;
        if self.memo.len() >= MOST {
            return Err(format!("more than {MOST} values in the memo"));
        }
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let id = self.memo.get(&key).copied().ok_or_else(|| format!("nothing in the memo at {key}"))?;
        self.push_id(id)
    }

    fn memo_key(&mut self, long: bool) -> Result<u64, String> {
        Ok(if long { u64::from(u32::from_le_bytes(self.bytes.array()?)) } else { u64::from(self.bytes.byte()?) })
    }

    fn decimal(&mut self) -> Result<u64, String> {
        let text = self.bytes.line()?;
        text.parse().map_err(|_| format!("expected a memo key, found '{}'", printable(text)))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".to_owned());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}
