//! From the value that a convolution takes its weight from back to the constant tensor behind it.

use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::flat::{Flat, Node, Origin, Role, ValueId, domain};
use super::proto::{NodeProto, TensorProto};
use super::steps::{Linear, Parameter, Step, reshaped, squeezed, unsqueezed};
use super::tensor::{DataType, MOST_DIMS, Tensor, Tensors};
use crate::error::{Error, printable};

/// Nodes between a weight and its convolution.
const LONGEST: usize = 32;

/// Why a convolution has no weight.
#[derive(Debug)]
pub enum Fault {
    /// It is valid, but cannot be read: the layer is passed over.
    Skip(String),
    /// The file is broken.
    Invalid(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Invalid(error)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Fault::Skip(reason)
    }
}

/// A constant weight: a tensor of the file and what is done to it before it is used.
#[derive(Debug)]
pub struct Weight<'m> {
    /// The tensor's name.
    pub name: &'m str,
    /// The tensor's message.
    pub root: &'m TensorProto,
    /// Shape and type as the convolution sees them.
    pub shape: Vec<usize>,
    pub data_type: DataType,
    /// Bytes of the tensor in its file.
    pub stored_bytes: usize,
    tensor: Rc<Tensor>,
    steps: Vec<Step>,
}

impl Weight<'_> {
    /// Equal for two uses of one tensor in the same form.
    pub fn identity(&self) -> [u8; 32] {
        let mut key = vec![std::ptr::from_ref(self.root).addr()];
        self.steps.iter().for_each(|step| step.identity(&mut key));
        // A digest, as a key may be long and a model may have many.
        Sha256::digest(key.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()).into()
    }

    /// The weights as float32, row-major in `shape`.
    ///
    /// # Errors
    /// In words.
    pub fn values(&self) -> Result<Vec<f32>, String> {
        let mut shape = self.tensor.shape.clone();
        let mut values = self.tensor.floats()?;
        for step in &self.steps {
            step.apply(&mut values, &mut shape)?;
        }
        Ok(values)
    }

    /// Adds the conversion of a quantised weight to what its numbers stand for.
    ///
    /// # Errors
    /// In words: `linear` does not fit the weight's type.
    pub fn dequantize(&mut self, linear: Linear) -> Result<(), String> {
        let quantised = matches!(
            self.data_type,
            DataType::INT8 | DataType::UINT8 | DataType::INT16 | DataType::UINT16 | DataType::INT32
        );
        if !quantised {
            return Err(format!("expected a quantised weight of 8, 16 or 32 bits, found {}", self.data_type.name()));
        }
        if let Some(zero_type) = linear.zero_type.filter(|&zero_type| zero_type != self.data_type) {
            let (zero, own) = (zero_type.name(), self.data_type.name());
            return Err(format!("expected a zero point of the weight's type {own}, found {zero}"));
        }
        self.data_type = linear.scale_type;
        self.steps.push(Step::Dequantize(linear));
        Ok(())
    }
}

/// What a value is when names are followed back.
pub enum Traced<'m> {
    Tensor(&'m TensorProto, &'m str),
    Float(f32),
    Integers(&'m [i64]),
    Computed(usize),
}

/// Finds constants in a model.
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a, 'm> {
    pub flat: &'a Flat<'m>,
    pub tensors: &'a Tensors<'a>,
}

impl<'m> Resolver<'_, 'm> {
    /// Follows `value` back through Identity and functions' inputs and outputs.
    ///
    /// # Errors
    /// [`Fault::Skip`] for what is neither constant nor computed by a node.
    pub fn trace(&self, mut value: ValueId) -> Result<Traced<'m>, Fault> {
        let skip = |what: &str, value: ValueId| {
            Err(Fault::Skip(format!("'{}' is {what}", printable(self.flat.values[value].name))))
        };
        for _ in 0..LONGEST {
            let id = match self.flat.values[value].origin {
                Origin::Initializer(tensor) => return Ok(Traced::Tensor(tensor, self.flat.values[value].name)),
                Origin::SparseInitializer => return skip("a sparse initializer", value),
                Origin::Input => return skip("an input of the model, not a constant", value),
                Origin::Unknown => return skip("produced by no node", value),
                Origin::Node(id) => id,
            };
            let node = &self.flat.nodes[id];
            match (node.role, operator(node.proto)) {
                (Role::Body, _) => return skip("an input of a body, not a constant", value),
                (Role::Operator, "Constant") => return self.constant(node, self.flat.values[value].name),
                (Role::Result, _) | (Role::Operator, "Identity") => match node.input(0) {
                    Some(input) => value = input,
                    None => return skip("produced by a node without input", value),
                },
                (Role::Operator, _) => return Ok(Traced::Computed(id)),
            }
        }
        skip(&format!("behind more than {LONGEST} nodes"), value)
    }

    fn constant(&self, node: &Node<'m>, name: &'m str) -> Result<Traced<'m>, Fault> {
        let attribute = |name: &str| self.flat.attribute(node, name);
        if let Some(tensor) = attribute("value").and_then(|value| value.t.as_deref()) {
            Ok(Traced::Tensor(tensor, name))
        } else if let Some(value) = attribute("value_float").and_then(|value| value.f) {
            Ok(Traced::Float(value))
        } else if let Some(values) = attribute("value_ints") {
            Ok(Traced::Integers(&values.ints))
        } else {
            Err(Fault::Skip(format!("the Constant '{}' holds no tensor of numbers", printable(name))))
        }
    }

    /// The constant weight behind `value`.
    ///
    /// # Errors
    /// [`Fault::Skip`] for one that is computed, [`Fault::Invalid`] for a broken tensor.
    pub fn weight(&self, mut value: ValueId) -> Result<Weight<'m>, Fault> {
        let mut chain = Vec::new();
        let (root, name) = loop {
            match self.trace(value)? {
                Traced::Tensor(root, name) => break (root, name),
                Traced::Float(_) | Traced::Integers(_) => {
                    return Err(Fault::Skip("the weight is a list of numbers, not a tensor".to_owned()));
                }
                Traced::Computed(id) => {
                    let node = &self.flat.nodes[id];
                    if chain.len() == LONGEST {
                        return Err(Fault::Skip(format!("the weight is behind more than {LONGEST} nodes")));
                    }
                    chain.push(node);
                    value = match node.input(0) {
                        Some(input) if is_step(node.proto) => input,
                        _ => return Err(Fault::Skip(format!("the weight is computed by {}", describe(node)))),
                    };
                }
            }
        };
        let tensor = self.tensors.get(root, name)?;
        let (shape, data_type, stored_bytes) = (tensor.shape.clone(), tensor.data_type, tensor.stored_bytes());
        let mut weight = Weight { name, root, shape, data_type, stored_bytes, tensor, steps: Vec::new() };
        for node in chain.into_iter().rev() {
            self.push(&mut weight, node).map_err(|fault| match fault {
                Fault::Skip(reason) => Fault::Skip(format!("{}: {reason}", describe(node))),
                invalid => invalid,
            })?;
        }
        Ok(weight)
    }

    /// Adds what `node` does to `weight`.
    fn push(&self, weight: &mut Weight<'m>, node: &Node<'m>) -> Result<(), Fault> {
        let step = match operator(node.proto) {
            "Cast" => {
                let to = self.flat.integer(node, "to").and_then(|to| i32::try_from(to).ok()).map(DataType);
                weight.data_type = to.filter(|to| to.is_float()).ok_or_else(|| "a cast to no float type".to_owned())?;
                if matches!(weight.data_type, DataType::FLOAT | DataType::DOUBLE) {
                    // Elements are float32 as soon as they are read: the same weight as without the cast.
                    return Ok(());
                }
                Step::Cast(weight.data_type)
            }
            "Transpose" => {
                let axes = self.flat.attribute(node, "perm").map_or(&[][..], |perm| &perm.ints);
                let step = Step::transpose(axes, weight.shape.len())?;
                weight.shape = step.shape(&weight.shape);
                step
            }
            "Reshape" => {
                let shape = self.integers(node, "shape")?.unwrap_or_default();
                let keeps_zero = self.flat.integer(node, "allowzero").is_some_and(|flag| flag != 0);
                weight.shape = reshaped(&weight.shape, &shape, keeps_zero)?;
                Step::Reshape(weight.shape.clone())
            }
            "Squeeze" => {
                weight.shape = squeezed(&weight.shape, self.integers(node, "axes")?.as_deref())?;
                Step::Reshape(weight.shape.clone())
            }
            "Unsqueeze" => {
                weight.shape = unsqueezed(&weight.shape, &self.integers(node, "axes")?.unwrap_or_default())?;
                Step::Reshape(weight.shape.clone())
            }
            "DequantizeLinear" => {
                let linear = self.node_linear(node, &weight.shape)?;
                return Ok(weight.dequantize(linear)?);
            }
            _ => {
                if !weight.data_type.is_float() {
                    return Err(Fault::Skip(format!("expected floats, found {}", weight.data_type.name())));
                }
                let linear = self.node_linear(node, &weight.shape)?;
                let declared = self.flat.integer(node, "output_dtype").and_then(|to| i32::try_from(to).ok());
                let declared = declared.filter(|&to| to != 0).map(DataType);
                let to = linear.zero_type.or(declared).unwrap_or(DataType::UINT8);
                weight.data_type = to;
                Step::quantize(linear, to)?
            }
        };
        weight.steps.push(step);
        Ok(())
    }

    /// Integers in an attribute (older opsets) or in input 1; `None` where there are none.
    fn integers(&self, node: &Node<'m>, name: &str) -> Result<Option<Vec<i64>>, Fault> {
        if let Some(attribute) = self.flat.attribute(node, name) {
            let ints = &attribute.ints;
            return if ints.len() > MOST_DIMS {
                Err(Fault::Skip(format!("expected at most {MOST_DIMS} {name}, found {}", ints.len())))
            } else {
                Ok(Some(ints.clone()))
            };
        }
        let Some(value) = node.input(1) else { return Ok(None) };
        match self.trace(value)? {
            Traced::Integers(integers) if integers.len() <= MOST_DIMS => Ok(Some(integers.to_vec())),
            Traced::Tensor(proto, name) => Ok(Some(self.tensors.get(proto, name)?.integers()?)),
            _ => Err(Fault::Skip(format!("expected at most {MOST_DIMS} constant numbers as {name}"))),
        }
    }

    /// Scale and zero point of a QuantizeLinear or DequantizeLinear over a tensor of `shape`.
    fn node_linear(&self, node: &Node<'m>, shape: &[usize]) -> Result<Linear, Fault> {
        if self.flat.integer(node, "block_size").is_some_and(|size| size != 0) {
            return Err(Fault::Skip("blocked quantisation is not read".to_owned()));
        }
        let axis = self.flat.integer(node, "axis").unwrap_or(1);
        let scale = node.input(1).ok_or_else(|| "it has no scale".to_owned())?;
        self.linear(scale, node.input(2), axis, shape)
    }

    /// A constant scale and zero point, for all of a tensor of `shape` or for each index of its `axis`.
    ///
    /// # Errors
    /// As [`Resolver::weight`].
    pub fn linear(&self, scale: ValueId, zero: Option<ValueId>, axis: i64, shape: &[usize]) -> Result<Linear, Fault> {
        let scale = self.parameter(scale, "scale")?;
        let zero = zero.map(|zero| self.parameter(zero, "zero point")).transpose()?;
        Ok(Linear::new(scale, zero, axis, shape)?)
    }

    fn parameter(&self, value: ValueId, what: &str) -> Result<Parameter, Fault> {
        match self.trace(value)? {
            Traced::Float(value) => Ok(Parameter::Float(value)),
            Traced::Tensor(proto, name) => Ok(Parameter::Tensor(self.tensors.get(proto, name)?)),
            Traced::Computed(id) => {
                Err(Fault::Skip(format!("the {what} is computed by {}", describe(&self.flat.nodes[id]))))
            }
            Traced::Integers(_) => Err(Fault::Skip(format!("the {what} is a list of integers"))),
        }
    }
}

/// The operator of a node of the standard's domain, or of ONNX Runtime's where it is the same; else empty.
pub fn operator(node: &NodeProto) -> &str {
    match (domain(&node.domain), node.op_type.as_str()) {
        ("", operator) => operator,
        ("com.microsoft", operator @ ("FusedConv" | "QuantizeLinear" | "DequantizeLinear")) => operator,
        _ => "",
    }
}

/// Whether weights are followed through the node.
fn is_step(node: &NodeProto) -> bool {
    matches!(
        operator(node),
        "Cast" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "DequantizeLinear" | "QuantizeLinear"
    )
}

fn describe(node: &Node<'_>) -> String {
    format!("{} '{}'", printable(&node.proto.op_type), printable(node.name()))
}
