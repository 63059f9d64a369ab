//! From the pickled object to named tensors: through dicts, lists and inert modules, in their order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::super::Skipped;
use super::super::state_dict::Owner;
use super::value::{Id, Object, Value, Values};
use crate::error::printable;

/// Deepest nesting. A module takes three levels: the object, its state, its dict of modules.
const DEEPEST: usize = 192;

/// The most entries looked at, and the most bytes of names: a graph can have many more paths than values.
const MOST_ENTRIES: usize = 4 << 20;
const MOST_NAME_BYTES: usize = 64 << 20;

/// Keys of a checkpoint under which the model itself stands.
const WRAPPERS: &[&str] = &[
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "model_ema",
    "module",
    "net",
    "net_state_dict",
    "network",
    "params",
    "params_ema",
    "parameters",
    "weights",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
];

/// A tensor in the object.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// Index in [`Values::tensors`].
    pub(super) tensor: u32,
    pub(super) owner: Owner,
}

/// The tensors of a pickled object, and what was passed over.
///
/// # Errors
/// A container that holds itself, or is nested too deeply.
pub(super) fn tensors(values: &Values<'_>, root: Id) -> Result<(Vec<Found>, Vec<Skipped>), String> {
    let mut walk = Walk {
        values,
        path: Vec::new(),
        active: Vec::new(),
        entries: 0,
        name_bytes: 0,
        found: vec![],
        skipped: vec![],
    };
    match values.get(root) {
        Value::Dict(pairs) => walk.checkpoint(root, pairs)?,
        _ => walk.visit(root, Owner::Unknown)?,
    }
    Ok((walk.found, walk.skipped))
}

struct Walk<'v, 'a> {
    values: &'v Values<'a>,
    path: Vec<Cow<'v, str>>,
    /// The containers on the way from the root.
    active: Vec<Id>,
    entries: usize,
    name_bytes: usize,
    found: Vec<Found>,
    skipped: Vec<Skipped>,
}

impl<'v> Walk<'v, '_> {
    /// The outermost dict: a state dict, or a checkpoint that has one beside an optimizer's state.
    fn checkpoint(&mut self, root: Id, pairs: &'v [(Id, Id)]) -> Result<(), String> {
        self.active.push(root);
        let mut parts: Vec<(Cow<'v, str>, Range<usize>)> = Vec::new();
        let mut bare = false;
        for (key, value) in self.named(pairs)? {
            if is_training_state(&key) {
                continue;
            }
            bare |= matches!(self.values.get(value), Value::Tensor(_));
            let start = self.found.len();
            self.path.push(key.clone());
            self.visit(value, Owner::Unknown)?;
            self.path.pop();
            if self.found.len() > start {
                parts.push((key, start..self.found.len()));
            }
        }
        self.active.pop();
        if !bare {
            self.choose(parts);
        }
        Ok(())
    }

    /// Of weights and their moving average the weights; and no prefix where only one part is a model.
    fn choose(&mut self, mut parts: Vec<(Cow<'v, str>, Range<usize>)>) {
        if parts.iter().any(|(key, _)| !is_average(key)) {
            // From the end, so that the ranges before stay right.
            for (key, range) in parts.extract_if(.., |(key, _)| is_average(key)).collect::<Vec<_>>().into_iter().rev() {
                self.found.drain(range);
                let reason = "a moving average of the weights that stand beside it".to_owned();
                self.skipped.push(Skipped { name: key.into_owned(), reason });
            }
        }
        if let [(key, _)] = &parts[..]
            && WRAPPERS.contains(&&**key)
        {
            for found in &mut self.found {
                if let Some(rest) = found.name.strip_prefix(&**key).and_then(|rest| rest.strip_prefix('.')) {
                    found.name = rest.to_owned();
                }
            }
        }
    }

    fn visit(&mut self, id: Id, owner: Owner) -> Result<(), String> {
        let values = self.values;
        match values.get(id) {
            Value::Tensor(tensor) => {
                let name = self.name()?;
                self.found.push(Found { name, tensor: *tensor, owner });
            }
            Value::OtherTensor(global) => {
                let name = self.name()?;
                let reason = format!("built by {}, which is not read", printable(&values.global(*global).to_string()));
                self.skipped.push(Skipped { name, reason });
            }
            Value::Dict(pairs) if self.enter(id, true)? => {
                self.visit_pairs(pairs, owner)?;
                self.active.pop();
            }
            Value::List(items) | Value::Tuple(items) if self.enter(id, true)? => {
                for (position, &item) in items.iter().enumerate() {
                    self.count()?;
                    self.path.push(Cow::Owned(position.to_string()));
                    self.visit(item, Owner::Unknown)?;
                    self.path.pop();
                }
                self.active.pop();
            }
            Value::Object(object) if self.enter(id, false)? => {
                self.visit_object(object)?;
                self.active.pop();
            }
            _ => {}
        }
        Ok(())
    }

    /// Tensors of `pairs` themselves belong to `owner`.
    fn visit_pairs(&mut self, pairs: &'v [(Id, Id)], owner: Owner) -> Result<(), String> {
        for (key, value) in self.named(pairs)? {
            let owner = if matches!(self.values.get(value), Value::Tensor(_)) { owner } else { Owner::Unknown };
            self.path.push(key);
            self.visit(value, owner)?;
            self.path.pop();
        }
        Ok(())
    }

    /// A module's parameters, buffers and modules, in the order of its `state_dict()`; any other record's
    /// attributes.
    fn visit_object(&mut self, object: &'v Object) -> Result<(), String> {
        let values = self.values;
        self.visit_pairs(&object.items, Owner::Unknown)?;
        let Some(state) = object.state else { return Ok(()) };
        let pairs = match values.get(state) {
            Value::Dict(pairs) => pairs,
            // Attributes and slots.
            Value::Tuple(parts) => match parts.first().map(|&first| values.get(first)) {
                Some(Value::Dict(pairs)) => pairs,
                _ => return self.visit(state, Owner::Unknown),
            },
            _ => return self.visit(state, Owner::Unknown),
        };
        let attributes: HashMap<&str, Id> =
            pairs.iter().filter_map(|&(key, value)| Some((values.str(key)?, value))).collect();
        let owner = self.owner(object, &attributes);
        if !attributes.contains_key("_parameters") {
            return self.visit_pairs(pairs, owner);
        }
        for part in ["_parameters", "_buffers", "_modules"] {
            match attributes.get(part).map(|&id| (id, values.get(id))) {
                Some((id, Value::Dict(pairs))) if self.enter(id, true)? => {
                    self.visit_pairs(pairs, owner)?;
                    self.active.pop();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a module's class says about its weight; TorchScript mangles the class's module, not its name.
    fn owner(&self, object: &Object, attributes: &HashMap<&str, Id>) -> Owner {
        let class = self.values.global(object.class);
        if !class.module.trim_start_matches("__torch__.").starts_with("torch.nn.") {
            return Owner::Unknown;
        }
        match class.name {
            "Conv2d" => {
                let groups = attributes.get("groups").and_then(|&groups| self.values.int(groups));
                let groups = groups.and_then(|groups| usize::try_from(groups).ok()).filter(|&groups| groups > 0);
                Owner::Convolution { groups }
            }
            "ConvTranspose2d" => Owner::Transposed,
            _ => Owner::Unknown,
        }
    }

    /// The entries with a name, each name once: a later value replaces an earlier one in its place.
    fn named(&mut self, pairs: &'v [(Id, Id)]) -> Result<Vec<(Cow<'v, str>, Id)>, String> {
        let mut entries: Vec<(Cow<'v, str>, Id)> = Vec::with_capacity(pairs.len());
        let mut places: HashMap<Cow<'v, str>, usize> = HashMap::with_capacity(pairs.len());
        for &(key, value) in pairs {
            self.count()?;
            let name: Cow<'v, str> = match self.values.get(key) {
                Value::Str(name) => Cow::Borrowed(name),
                Value::Int(number) => Cow::Owned(number.to_string()),
                _ => continue,
            };
            match places.get(&name) {
                Some(&place) => {
                    if let Some(entry) = entries.get_mut(place) {
                        entry.1 = value;
                    }
                }
                None => {
                    places.insert(name.clone(), entries.len());
                    entries.push((name, value));
                }
            }
        }
        Ok(entries)
    }

    /// Whether to go into a container. Modules may know their parents; lists that hold themselves are made
    /// to trap readers.
    fn enter(&mut self, id: Id, refuse_cycle: bool) -> Result<bool, String> {
        if self.active.contains(&id) {
            return match refuse_cycle {
                true => Err(format!("{} holds itself", self.values.kind(id))),
                false => Ok(false),
            };
        }
        if self.active.len() >= DEEPEST {
            return Err(format!("the pickled object is nested deeper than {DEEPEST}"));
        }
        self.active.push(id);
        Ok(true)
    }

    fn count(&mut self) -> Result<(), String> {
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            Err(format!("more than {MOST_ENTRIES} paths lead through the pickled object"))
        } else {
            Ok(())
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let length = self.path.iter().map(|part| part.len() + 1).sum::<usize>();
        self.name_bytes = self.name_bytes.saturating_add(length);
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(format!("the tensors' names are longer than {MOST_NAME_BYTES} bytes"));
        }
        Ok(self.path.join("."))
    }
}

/// Keys of a checkpoint that belong to the training, not to the model.
fn is_training_state(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.starts_with("optim")
        || key.ends_with("optimizer")
        || key.contains("scheduler")
        || key.contains("rng_state")
        || key == "scaler"
}

/// Whether a key names exponential moving averages.
fn is_average(key: &str) -> bool {
    key.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "ema")
}
