//! What a pickle builds: values in one arena, referring to each other by index.
//!
//! An arena makes cycles harmless, sharing free (a memo bomb costs its own bytes) and dropping flat,
//! however deep the structure.

use std::borrow::Cow;

use super::super::tensor::Dtype;

/// Index of a value.
pub(super) type Id = u32;

/// The most values, and the most references between them, that a pickle may build. A checkpoint of
/// 10,000 tensors has about 200,000; the limit bounds memory at some hundred MiB.
const MOST: usize = 3 << 20;

/// A value; containers hold the indices of their contents.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    /// A number that is of no use here: floating-point, or an integer beyond 64 bits.
    Number,
    Str(Cow<'a, str>),
    Bytes,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// Keys and values in the order of insertion; a later equal key wins.
    Dict(Vec<(Id, Id)>),
    /// A named class or function, by its index in [`Values::globals`].
    Global(u32),
    /// An instance of a class that is not known: an inert record.
    Object(Box<Object>),
    /// By its index in [`Values::storages`].
    Storage(u32),
    /// By its index in [`Values::tensors`].
    Tensor(u32),
    /// A tensor of a kind that is not read (quantised, sparse), by its builder's global.
    OtherTensor(u32),
}

/// An inert record: what a class was called with, and the state that would have been given to it.
#[derive(Debug)]
pub(super) struct Object {
    /// The class, by its index in [`Values::globals`].
    pub(super) class: u32,
    /// From BUILD.
    pub(super) state: Option<Id>,
    /// From SETITEM(S), for a subclass of a dict.
    pub(super) items: Vec<(Id, Id)>,
}

/// A named class or function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Global<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

impl std::fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// A run of elements in a record of the file.
#[derive(Debug, Clone)]
pub(super) struct Storage<'a> {
    /// The record's key.
    pub(super) key: Cow<'a, str>,
    /// Element type and its size in bytes; `None` for untyped storages, which count bytes.
    pub(super) dtype: Option<(Dtype, usize)>,
    /// Elements of the whole record.
    pub(super) length: u64,
    /// The part of the record that this storage is (old files only): first element and length.
    pub(super) part: Option<(u64, u64)>,
}

/// A tensor: a strided view of a storage, as the file gives it and not yet checked against bytes.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// Index in [`Values::storages`].
    pub(super) storage: u32,
    /// Element type and its size in bytes.
    pub(super) dtype: (Dtype, usize),
    /// In elements.
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

/// The arena.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    values: Vec<Value<'a>>,
    references: usize,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor>,
}

impl<'a> Values<'a> {
    /// Adds a value.
    ///
    /// # Errors
    /// Too many values.
    pub(super) fn add(&mut self, value: Value<'a>) -> Result<Id, String> {
        self.charge(match &value {
            Value::List(items) | Value::Tuple(items) => items.len(),
            Value::Dict(items) => items.len(),
            // As much memory as so many references.
            Value::Object(_) | Value::Global(_) => 2,
            Value::Storage(_) | Value::Tensor(_) => 8,
            _ => 0,
        })?;
        if self.values.len() >= MOST {
            return Err(format!("the pickle builds more than {MOST} values"));
        }
        let id = Id::try_from(self.values.len()).map_err(|e| e.to_string())?;
        self.values.push(value);
        Ok(id)
    }

    /// Counts `more` references between values.
    ///
    /// # Errors
    /// Too many of them.
    pub(super) fn charge(&mut self, more: usize) -> Result<(), String> {
        self.references = self.references.saturating_add(more);
        if self.references > MOST {
            Err(format!("the pickle's values refer more than {MOST} times to others"))
        } else {
            Ok(())
        }
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Value<'a>> {
        self.values.get_mut(id as usize)
    }

    pub(super) fn global(&self, index: u32) -> Global<'a> {
        self.globals.get(index as usize).copied().unwrap_or(Global { module: "", name: "" })
    }

    pub(super) fn str(&self, id: Id) -> Option<&str> {
        if let Value::Str(text) = self.get(id) { Some(text) } else { None }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        if let Value::Int(value) = self.get(id) { Some(*value) } else { None }
    }

    /// The contents of a tuple or list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        if let Value::Tuple(items) | Value::List(items) = self.get(id) { Some(items) } else { None }
    }

    /// What a value is, for messages.
    pub(super) fn kind(&self, id: Id) -> String {
        match self.get(id) {
            Value::None => "None".to_owned(),
            Value::Bool => "a boolean".to_owned(),
            Value::Int(_) | Value::Number => "a number".to_owned(),
            Value::Str(_) => "a string".to_owned(),
            Value::Bytes => "bytes".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Global(index) => crate::error::printable(&self.global(*index).to_string()),
            Value::Object(object) => format!("a {}", crate::error::printable(&self.global(object.class).to_string())),
            Value::Storage(_) => "a storage".to_owned(),
            Value::Tensor(_) | Value::OtherTensor(_) => "a tensor".to_owned(),
        }
    }
}
