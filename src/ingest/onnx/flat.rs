//! A model as one flat graph: functions expanded at their calls, bodies of control flow in place, names
//! resolved to numbers.

use std::collections::HashMap;

use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};
use super::tensor::Tensors;
use crate::error::Result;
use crate::ingest::ModelFile;
use crate::ingest::graph::Dag;

/// Nodes, names and attributes that may be visited in all, and functions and bodies within each other: a few
/// functions that call each other twice expand to any number of nodes.
const MOST_VISITS: usize = 4_000_000;
const DEEPEST: usize = 64;
/// Attributes of a node: each look-up in a function may search those of 64 calls.
const MOST_ATTRIBUTES: usize = 256;

/// Number of a value in [`Flat::values`].
pub type ValueId = usize;
/// Number of a node in [`Flat::nodes`].
pub type NodeId = usize;

/// All nodes and values of a model.
#[derive(Debug, Default)]
pub struct Flat<'m> {
    pub values: Vec<Value<'m>>,
    pub nodes: Vec<Node<'m>>,
    /// The call of a function that nodes belong to; the first is the main graph, which is none.
    frames: Vec<Frame<'m>>,
}

/// A tensor with a name in some scope.
#[derive(Debug)]
pub struct Value<'m> {
    pub name: &'m str,
    pub origin: Origin<'m>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'m> {
    /// An input of the main graph that is no initializer.
    Input,
    Initializer(&'m TensorProto),
    SparseInitializer,
    Node(NodeId),
    /// Nowhere: a name that nothing produces.
    Unknown,
}

/// A node of any graph or body.
#[derive(Debug)]
pub struct Node<'m> {
    pub proto: &'m NodeProto,
    pub role: Role,
    /// By position; `None` for an optional one left out.
    pub inputs: Vec<Option<ValueId>>,
    /// What its bodies produce, where it is control flow.
    bodies: Vec<ValueId>,
    pub outputs: Vec<Option<ValueId>>,
    frame: usize,
}

/// What a flat node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node of the file.
    Operator,
    /// A result of the function that `proto` calls: its one input under another name.
    Result,
    /// The inputs of a body of `proto`: they depend on all inputs of it, as from the second turn of a loop on
    /// every value may.
    Body,
}

#[derive(Debug)]
struct Frame<'m> {
    call: &'m NodeProto,
    function: &'m FunctionProto,
    /// The frame that the call stands in.
    caller: usize,
}

/// A graph's names, and the graph around it.
struct Scope<'s, 'm> {
    names: HashMap<&'m str, ValueId>,
    outer: Option<&'s Scope<'s, 'm>>,
}

impl Scope<'_, '_> {
    fn find(&self, name: &str) -> Option<ValueId> {
        let mut scope = Some(self);
        while let Some(Scope { names, outer }) = scope {
            if let Some(&value) = names.get(name) {
                return Some(value);
            }
            scope = *outer;
        }
        None
    }
}

impl<'m> Flat<'m> {
    /// Flattens `model`, and checks every initializer in it.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) for a name that is given twice, a function that calls itself, a
    /// model that expands to too many nodes, and for what [`Tensors::get`] refuses.
    pub fn new(file: &ModelFile, model: &'m ModelProto, tensors: &Tensors<'_>) -> Result<Self> {
        let mut functions = HashMap::new();
        for function in &model.functions {
            let key = (domain(&function.domain), function.name.as_str(), function.overload.as_str());
            few_attributes(file, &function.name, &function.attribute_proto)?;
            if functions.insert(key, function).is_some() {
                return Err(file.invalid(&function.name, "two functions have this name"));
            }
        }
        let mut builder =
            Builder { file, tensors, functions, flat: Flat::default(), calls: Vec::new(), visits: 0, depth: 0 };
        if let Some(graph) = &model.graph {
            builder.graph(graph, None, None, 0)?;
        }
        Ok(builder.flat)
    }

    /// The attribute of `node` by this name, and, in a function's body, where it refers to the call's.
    pub fn attribute(&self, node: &Node<'m>, name: &str) -> Option<&'m AttributeProto> {
        let named = |list: &'m [AttributeProto], name: &str| list.iter().find(|attribute| attribute.name == name);
        let mut found = named(&node.proto.attribute, name)?;
        let mut frame = node.frame;
        // The callers' frames are at most `DEEPEST`.
        while !found.ref_attr_name.is_empty() {
            let Frame { call, function, caller } = self.frames.get(frame.checked_sub(1)?)?;
            let name = &found.ref_attr_name;
            found = named(&call.attribute, name).or_else(|| named(&function.attribute_proto, name))?;
            frame = *caller;
        }
        Some(found)
    }

    /// The integer attribute of `node` by this name.
    pub fn integer(&self, node: &Node<'m>, name: &str) -> Option<i64> {
        self.attribute(node, name)?.i
    }

    /// Each node's depth: the number of nodes on the longest path to it from an input of the main graph, itself
    /// included; 0 for nodes that depend on constants only.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) names a node on a cycle.
    pub fn depths(&self, file: &ModelFile) -> Result<Vec<usize>> {
        let mut dag = Dag::default();
        for (id, node) in self.nodes.iter().enumerate() {
            let mut fed = false;
            for &value in node.inputs.iter().flatten().chain(&node.bodies) {
                match self.values[value].origin {
                    Origin::Input => fed = true,
                    Origin::Node(producer) => dag.add_edge(producer, id),
                    _ => {}
                }
            }
            dag.add_vertex(node.role == Role::Operator, fed);
        }
        match dag.longest_paths() {
            Ok(depths) => Ok(depths.into_iter().map(Option::unwrap_or_default).collect()),
            Err(node) => Err(file.invalid(self.nodes[node].name(), "the node depends on its own output")),
        }
    }
}

impl<'m> Node<'m> {
    /// The node's name, or else that of its first output, or its operator.
    pub fn name(&self) -> &'m str {
        let output = self.proto.output.first().map_or("", String::as_str);
        [self.proto.name.as_str(), output].into_iter().find(|name| !name.is_empty()).unwrap_or(&self.proto.op_type)
    }

    /// The value at input `index`, unless it is left out.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }
}

/// The standard's domain has two names.
pub fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn few_attributes(file: &ModelFile, name: &str, attributes: &[AttributeProto]) -> Result<()> {
    if attributes.len() > MOST_ATTRIBUTES {
        let reason = format!("expected at most {MOST_ATTRIBUTES} attributes, found {}", attributes.len());
        return Err(file.invalid(name, reason));
    }
    Ok(())
}

type Functions<'m> = HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>;

struct Builder<'f, 'm> {
    file: &'f ModelFile,
    tensors: &'f Tensors<'f>,
    functions: Functions<'m>,
    flat: Flat<'m>,
    /// The functions that are being expanded.
    calls: Vec<&'m FunctionProto>,
    visits: usize,
    depth: usize,
}

impl<'m> Builder<'_, 'm> {
    /// Adds a graph. `inputs`: the node that produces a body's inputs; those of the main graph have none.
    /// Returns the graph's outputs.
    fn graph(
        &mut self,
        graph: &'m GraphProto,
        inputs: Option<NodeId>,
        outer: Option<&Scope<'_, 'm>>,
        frame: usize,
    ) -> Result<Vec<ValueId>> {
        let mut scope = Scope { names: HashMap::new(), outer };
        self.visit(graph.initializer.len() + graph.sparse_initializer.len() + graph.input.len() + graph.output.len())?;
        for tensor in &graph.initializer {
            let name = if tensor.name.is_empty() { "an initializer without a name" } else { &tensor.name };
            self.tensors.get(tensor, name)?;
            self.define(&mut scope, &tensor.name, Origin::Initializer(tensor))?;
        }
        for tensor in graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_deref()) {
            self.define(&mut scope, &tensor.name, Origin::SparseInitializer)?;
        }
        for input in &graph.input {
            // Up to IR version 3 every initializer had to be listed as an input, too.
            if scope.names.get(input.name.as_str()).is_none_or(|&value| self.is_input(value)) {
                self.define(&mut scope, &input.name, inputs.map_or(Origin::Input, Origin::Node))?;
            }
        }
        self.nodes(&graph.node, &mut scope, frame)?;
        Ok(graph.output.iter().map(|output| self.lookup(&scope, &output.name)).collect())
    }

    /// Adds `nodes`, in any order, whose outputs are names of `scope`.
    fn nodes(&mut self, nodes: &'m [NodeProto], scope: &mut Scope<'_, 'm>, frame: usize) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.file.invalid("", format!("functions and bodies are nested deeper than {DEEPEST}")));
        }
        let mut outputs = Vec::with_capacity(nodes.len());
        for node in nodes {
            self.visit(1 + node.input.len() + node.output.len() + node.attribute.len())?;
            few_attributes(self.file, &node.name, &node.attribute)?;
            let mut ids = Vec::with_capacity(node.output.len());
            for name in &node.output {
                ids.push(if name.is_empty() { None } else { Some(self.define(scope, name, Origin::Unknown)?) });
            }
            outputs.push(ids);
        }
        for (node, outputs) in nodes.iter().zip(outputs) {
            let inputs: Vec<_> =
                node.input.iter().map(|name| (!name.is_empty()).then(|| self.lookup(scope, name))).collect();
            let key = (domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
            match self.functions.get(&key).copied() {
                Some(function) => self.call(node, function, &inputs, &outputs, frame)?,
                None => self.operator(node, inputs, outputs, scope, frame)?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn operator(
        &mut self,
        node: &'m NodeProto,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
        scope: &Scope<'_, 'm>,
        frame: usize,
    ) -> Result<()> {
        let mut bodies = Vec::new();
        for body in
            node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
        {
            let entry = (!body.input.is_empty()).then(|| self.add(node, Role::Body, inputs.clone(), Vec::new(), frame));
            bodies.extend(self.graph(body, entry, Some(scope), frame)?);
        }
        let id = self.add(node, Role::Operator, inputs, outputs, frame);
        self.flat.nodes[id].bodies = bodies;
        Ok(())
    }

    fn call(
        &mut self,
        node: &'m NodeProto,
        function: &'m FunctionProto,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
        frame: usize,
    ) -> Result<()> {
        if self.calls.iter().any(|&call| std::ptr::eq(call, function)) {
            return Err(self.file.invalid(&function.name, "the function calls itself"));
        }
        if node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
            return Err(self.file.invalid(&node.name, "a graph as attribute of a function's call is not read"));
        }
        self.visit(function.input.len() + function.output.len())?;
        let mut scope = Scope { names: HashMap::new(), outer: None };
        for (i, name) in function.input.iter().enumerate() {
            let value = inputs.get(i).copied().flatten().unwrap_or_else(|| self.add_value(name, Origin::Unknown));
            if scope.names.insert(name, value).is_some() {
                return Err(self.file.invalid(name, format!("the function {} has this input twice", function.name)));
            }
        }
        self.flat.frames.push(Frame { call: node, function, caller: frame });
        let inner = self.flat.frames.len();
        self.calls.push(function);
        self.nodes(&function.node, &mut scope, inner)?;
        self.calls.pop();
        for (name, output) in function.output.iter().zip(outputs) {
            let value = self.lookup(&scope, name);
            self.add(node, Role::Result, vec![Some(value)], vec![*output], frame);
        }
        Ok(())
    }

    fn add(
        &mut self,
        proto: &'m NodeProto,
        role: Role,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
        frame: usize,
    ) -> NodeId {
        let id = self.flat.nodes.len();
        for &output in outputs.iter().flatten() {
            self.flat.values[output].origin = Origin::Node(id);
        }
        self.flat.nodes.push(Node { proto, role, inputs, bodies: Vec::new(), outputs, frame });
        id
    }

    fn add_value(&mut self, name: &'m str, origin: Origin<'m>) -> ValueId {
        self.flat.values.push(Value { name, origin });
        self.flat.values.len() - 1
    }

    fn define(&mut self, scope: &mut Scope<'_, 'm>, name: &'m str, origin: Origin<'m>) -> Result<ValueId> {
        let value = self.add_value(name, origin);
        match scope.names.insert(name, value) {
            None => Ok(value),
            Some(_) => Err(self.file.invalid(name, "expected one value of this name in its graph, found two")),
        }
    }

    fn lookup(&mut self, scope: &Scope<'_, 'm>, name: &'m str) -> ValueId {
        scope.find(name).unwrap_or_else(|| self.add_value(name, Origin::Unknown))
    }

    fn is_input(&self, value: ValueId) -> bool {
        !matches!(self.flat.values[value].origin, Origin::Initializer(_) | Origin::SparseInitializer)
    }

    fn visit(&mut self, count: usize) -> Result<()> {
        self.visits = self.visits.saturating_add(count);
        if self.visits > MOST_VISITS {
            let reason = format!("the model expands to more than {MOST_VISITS} nodes, names and attributes");
            return Err(self.file.invalid("", reason));
        }
        Ok(())
    }
}
