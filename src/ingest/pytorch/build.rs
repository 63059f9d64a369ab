//! What the calls in a pickle make: tensors, containers and inert records.

use super::super::tensor::Dtype;
use super::globals::{Meaning, meaning};
use super::value::{Id, Object, Storage, Tensor, Value, Values};
use crate::error::printable;

/// The most dimensions that PyTorch gives a tensor.
const MOST_DIMENSIONS: usize = 64;

/// What a call of `callee` with the tuple `arguments` makes; `instance` for the opcodes that make an
/// instance of a class and call no function.
///
/// # Errors
/// A callee that is not on the allow-list, or arguments that do not fit it.
pub(super) fn call(values: &mut Values<'_>, callee: Id, arguments: Id, instance: bool) -> Result<Id, String> {
    let Value::Global(index) = *values.get(callee) else {
        return Err(format!("refused: it calls {}, which is no class", values.kind(callee)));
    };
    let global = values.global(index);
    let Some(items) = values.items(arguments) else {
        return Err(format!(
            "calls {} with {}, expected a tuple",
            printable(&global.to_string()),
            values.kind(arguments)
        ));
    };
    let items = first_few(items);
    let wrong = |what: &str| format!("{}: {what}", printable(&global.to_string()));
    let meaning = meaning(global);
    if instance
        && !matches!(meaning, Meaning::Class | Meaning::Dict | Meaning::Sequence | Meaning::Inert | Meaning::Wrapper)
    {
        return Err(wrong("refused: an instance of what is no class"));
    }
    match meaning {
        Meaning::RebuildTensor => tensor(values, &items, None).map_err(|e| wrong(&e)),
        Meaning::RebuildTensorV3 => {
            let dtype = items
                .get(6)
                .copied()
                .and_then(|id| dtype(values, id))
                .ok_or_else(|| wrong("expected an element type"))?;
            tensor(values, &items, Some(dtype)).map_err(|e| wrong(&e))
        }
        Meaning::RebuildFromType => match items[..] {
            [function, _, arguments, ..] if is_builder(values, function) => call(values, function, arguments, false),
            _ => Err(wrong("expected a builder of tensors and its arguments")),
        },
        Meaning::Wrapper => match items.first() {
            Some(&first) if matches!(values.get(first), Value::Tensor(_) | Value::OtherTensor(_)) => Ok(first),
            _ => values.add(record(index)),
        },
        Meaning::OtherTensor => values.add(Value::OtherTensor(index)),
        Meaning::Dict => {
            let pairs = items.first().map(|&first| dict_pairs(values, first)).transpose()?.unwrap_or_default();
            values.add(Value::Dict(pairs))
        }
        Meaning::Sequence => match items.first() {
            // Shared, not copied: a thousand copies of a long list cost nothing.
            Some(&first) if values.items(first).is_some() => Ok(first),
            _ => values.add(Value::List(Vec::new())),
        },
        Meaning::Reconstructor => match items.first().map(|&class| values.get(class)) {
            Some(&Value::Global(class)) => values.add(record(class)),
            _ => Err(wrong("expected a class")),
        },
        Meaning::Class | Meaning::Inert => values.add(record(index)),
        Meaning::Storage(..) | Meaning::UntypedStorage | Meaning::Dtype(..) => {
            Err(wrong("is not called in a model file"))
        }
        Meaning::Function | Meaning::Refused => Err(wrong("refused: a call of a function that builds no tensor")),
    }
}

/// The arguments that are looked at, apart from the arena so that it can change.
fn first_few(items: &[Id]) -> Vec<Id> {
    items.iter().take(16).copied().collect()
}

fn record(class: u32) -> Value<'static> {
    Value::Object(Box::new(Object { class, state: None, items: Vec::new() }))
}

fn is_builder(values: &Values<'_>, id: Id) -> bool {
    let Value::Global(index) = *values.get(id) else { return false };
    matches!(meaning(values.global(index)), Meaning::RebuildTensor | Meaning::RebuildTensorV3 | Meaning::OtherTensor)
}

/// The pairs of a dict or of a list of pairs, the form in which Python 2 wrote an `OrderedDict`.
fn dict_pairs(values: &mut Values<'_>, id: Id) -> Result<Vec<(Id, Id)>, String> {
    let pairs = match values.get(id) {
        Value::Dict(pairs) => pairs.clone(),
        Value::List(items) | Value::Tuple(items) => {
            let pair = |&item: &Id| match values.items(item) {
                Some(&[key, value]) => Ok((key, value)),
                _ => Err(format!("a dict of {}, expected pairs", values.kind(item))),
            };
            items.iter().map(pair).collect::<Result<_, _>>()?
        }
        // A defaultdict's factory.
        _ => Vec::new(),
    };
    Ok(pairs)
}

/// BUILD: gives `target` its state.
///
/// # Errors
/// A target that takes no state.
pub(super) fn set_state(values: &mut Values<'_>, target: Id, state: Id) -> Result<(), String> {
    match values.get_mut(target) {
        Some(Value::Object(object)) => object.state = Some(state),
        // Attributes of a dict (a state dict's `_metadata`) and of a tensor.
        Some(Value::Dict(_) | Value::Tensor(_) | Value::OtherTensor(_)) => {}
        _ => return Err(format!("gives a state to {}, expected an object", values.kind(target))),
    }
    Ok(())
}

/// BINPERSID: ("storage", class, key, location, length [, (key, offset, length)]) or ("module", class, ...).
///
/// # Errors
/// Anything else.
pub(super) fn persistent(values: &mut Values<'_>, pid: Id) -> Result<Id, String> {
    let expected = || "expected a storage behind a persistent id".to_owned();
    let items = values.items(pid).ok_or_else(expected)?;
    let items = first_few(items);
    match (items.first().and_then(|&kind| values.str(kind)), &items[..]) {
        // Old files bring a module's source along; only its class is of use.
        (Some("module"), &[_, class, ..]) => Ok(class),
        (Some("storage"), &[_, class, key, _, length, ref rest @ ..]) => {
            let Value::Global(class) = *values.get(class) else { return Err(expected()) };
            let dtype = match meaning(values.global(class)) {
                Meaning::Storage(dtype, size) => Some((dtype, size)),
                Meaning::UntypedStorage => None,
                _ => return Err(format!("a storage of class {}", printable(&values.global(class).to_string()))),
            };
            let Value::Str(key) = values.get(key) else { return Err("a storage's key must be a string".to_owned()) };
            let key = key.clone();
            let length = values.int(length).and_then(|length| u64::try_from(length).ok());
            let length = length.ok_or_else(|| "a storage's length must be a number from 0".to_owned())?;
            let part = rest.first().map(|&part| storage_part(values, part)).transpose()?.flatten();
            let index = u32::try_from(values.storages.len()).map_err(|e| e.to_string())?;
            values.storages.push(Storage { key, dtype, length, part });
            values.add(Value::Storage(index))
        }
        _ => Err(expected()),
    }
}

fn storage_part(values: &Values<'_>, id: Id) -> Result<Option<(u64, u64)>, String> {
    if matches!(values.get(id), Value::None) {
        return Ok(None);
    }
    let natural = |&id: &Id| values.int(id).and_then(|value| u64::try_from(value).ok());
    match values.items(id) {
        Some([_, offset, length]) => {
            let part = natural(offset).zip(natural(length));
            part.map(Some).ok_or_else(|| "a storage's part must be two numbers from 0".to_owned())
        }
        _ => Err("expected the part of a storage".to_owned()),
    }
}

/// A tensor of (storage, offset, size, stride, ...); places are checked when its values are read.
fn tensor(values: &mut Values<'_>, items: &[Id], dtype: Option<(Dtype, usize)>) -> Result<Id, String> {
    let &[storage, offset, shape, strides, ..] = items else {
        return Err(format!("expected storage, offset, size and stride, found {} values", items.len()));
    };
    let Value::Storage(storage) = *values.get(storage) else {
        return Err(format!("expected a storage, found {}", values.kind(storage)));
    };
    let known = values.storages.get(storage as usize).and_then(|storage| storage.dtype.clone());
    let dtype = dtype.or(known).ok_or("an untyped storage without an element type")?;
    let offset = values.int(offset).ok_or("expected a number for the offset")?;
    let (shape, strides) = (numbers(values, shape)?, numbers(values, strides)?);
    values.charge(shape.len() + strides.len())?;
    let index = u32::try_from(values.tensors.len()).map_err(|e| e.to_string())?;
    values.tensors.push(Tensor { storage, dtype, offset, shape, strides });
    values.add(Value::Tensor(index))
}

fn numbers(values: &Values<'_>, id: Id) -> Result<Vec<i64>, String> {
    let items = values.items(id).ok_or_else(|| format!("expected a tuple of numbers, found {}", values.kind(id)))?;
    if items.len() > MOST_DIMENSIONS {
        return Err(format!("{} dimensions, at most {MOST_DIMENSIONS} are possible", items.len()));
    }
    items.iter().map(|&item| values.int(item).ok_or_else(|| "expected numbers in a tuple".to_owned())).collect()
}

fn dtype(values: &Values<'_>, id: Id) -> Option<(Dtype, usize)> {
    let Value::Global(index) = *values.get(id) else { return None };
    if let Meaning::Dtype(dtype, size) = meaning(values.global(index)) { Some((dtype, size)) } else { None }
}
