//! The convolutions of a flat graph.

use std::collections::{HashMap, HashSet};

use ndarray::Array4;

use super::flat::{Flat, Node, NodeId, Role, ValueId};
use super::tensor::Tensors;
use super::weights::{Fault, Resolver, Traced, Weight, operator};
use crate::error::Result;
use crate::ingest::{Convolution, DepthSource, ModelFile, Skipped};

/// Convolutions of one model, each weight as often as it is used. The largest known have some thousands.
const MOST_CONVOLUTIONS: usize = 100_000;

/// Collects the 2-D convolutions of `flat`, each weight once, and what is passed over. `depths`: of its nodes.
///
/// # Errors
/// [`Error::Model`](crate::error::Error::Model) names the tensor or layer.
pub fn layers(
    file: &ModelFile,
    flat: &Flat<'_>,
    tensors: &Tensors<'_>,
    depths: &[usize],
) -> Result<(Vec<Convolution>, Vec<Skipped>)> {
    let is_convolution = |node: &Node<'_>| node.role == Role::Operator && Kind::of(node).is_some();
    let convolutions = || flat.nodes.iter().zip(depths).filter(|(node, _)| is_convolution(node));
    if convolutions().count() > MOST_CONVOLUTIONS {
        return Err(file.invalid("", format!("expected at most {MOST_CONVOLUTIONS} convolutions")));
    }
    let mut layers = Layers {
        file,
        resolver: Resolver { flat, tensors },
        consumers: None,
        budget: Budget { available: file.bytes().len(), used: 0, locations: HashSet::new() },
        by_weight: HashMap::new(),
        convolutions: Vec::new(),
        skipped: Vec::new(),
    };
    for (node, &depth) in convolutions() {
        layers.add(node, depth)?;
    }
    Ok((layers.convolutions, layers.skipped))
}

/// The operators that are convolutions, by how their weights are stored.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Float,
    /// Weight, scale and zero point are inputs 3, 4 and 5.
    QLinear,
    /// The weight is input 1, its zero point input 3, its scale behind the node.
    Integer,
}

impl Kind {
    fn of(node: &Node<'_>) -> Option<Self> {
        match operator(node.proto) {
            "Conv" | "FusedConv" => Some(Kind::Float),
            "QLinearConv" => Some(Kind::QLinear),
            "ConvInteger" => Some(Kind::Integer),
            _ => None,
        }
    }
}

struct Layers<'a, 'm> {
    file: &'a ModelFile,
    resolver: Resolver<'a, 'm>,
    /// The nodes that take each value, made when first needed.
    consumers: Option<HashMap<ValueId, Vec<NodeId>>>,
    budget: Budget<'m>,
    /// Index of the convolution that has a weight.
    by_weight: HashMap<[u8; 32], usize>,
    convolutions: Vec<Convolution>,
    skipped: Vec<Skipped>,
}

/// Bytes of tensors read, against those that there are. Without it one tensor in thousands of forms, or one external
/// file under thousands of names, would fill the memory.
struct Budget<'m> {
    available: usize,
    used: usize,
    locations: HashSet<&'m str>,
}

impl<'m> Budget<'m> {
    fn spend(&mut self, file: &ModelFile, weight: &Weight<'m>) -> Result<()> {
        let external = weight.root.external_data.iter().filter(|_| weight.root.data_location == 1);
        for entry in external.filter(|entry| entry.key == "location") {
            if self.locations.insert(&entry.value) {
                self.available = self.available.saturating_add(file.sibling(&entry.value)?.len());
            }
        }
        self.used = self.used.saturating_add(weight.stored_bytes);
        if self.used / 2 > self.available {
            let reason = format!("weights use the same bytes more than twice: {} of {}", self.used, self.available);
            return Err(file.invalid(weight.name, reason));
        }
        Ok(())
    }
}

impl<'m> Layers<'_, 'm> {
    fn add(&mut self, node: &Node<'m>, depth: usize) -> Result<()> {
        let mut kernel = self.kernel_shape(node);
        let weight = match self.weight(node, &mut kernel) {
            Ok(weight) => weight,
            Err(Fault::Invalid(error)) => return Err(error),
            Err(Fault::Skip(reason)) => {
                self.skip(node, &kernel, depth, reason);
                return Ok(());
            }
        };
        let groups = self.groups(node, &weight)?;
        let (&[out_channels, group_channels, height, width], Some(groups)) = (&weight.shape[..], groups) else {
            return Ok(());
        };
        let overflow = || self.file.invalid(node.name(), "groups times channels overflow");
        let in_channels = group_channels.checked_mul(groups).ok_or_else(overflow)?;
        let identity = weight.identity();
        if let Some(known) = self.by_weight.get(&identity).and_then(|&index| self.convolutions.get_mut(index)) {
            known.uses += 1;
            if depth < known.depth {
                (known.depth, known.groups, known.in_channels) = (depth, Some(groups), in_channels);
            }
            return Ok(());
        }
        let weights = if [height, width] == [3, 3] {
            self.budget.spend(self.file, &weight)?;
            let shape = (out_channels, group_channels, height, width);
            let array =
                weight.values().and_then(|values| Array4::from_shape_vec(shape, values).map_err(|e| e.to_string()));
            match array {
                Ok(array) => Some(array),
                Err(reason) => {
                    self.skip(node, &[height, width], depth, reason);
                    return Ok(());
                }
            }
        } else {
            None
        };
        self.by_weight.insert(identity, self.convolutions.len());
        self.convolutions.push(Convolution {
            name: weight.name.to_owned(),
            out_channels,
            in_channels,
            groups: Some(groups),
            kernel: [height, width],
            depth,
            depth_source: DepthSource::Graph,
            uses: 1,
            weights,
        });
        Ok(())
    }

    /// The node's weight as it multiplies; `kernel` becomes its kernel as soon as that is known.
    fn weight(&mut self, node: &Node<'m>, kernel: &mut Vec<usize>) -> Result<Weight<'m>, Fault> {
        let kind = Kind::of(node).unwrap_or(Kind::Float);
        let input = if matches!(kind, Kind::QLinear) { 3 } else { 1 };
        let value = node.input(input).ok_or_else(|| "the weight is missing".to_owned())?;
        let mut weight = self.resolver.weight(value)?;
        *kernel = weight.shape.get(2..).unwrap_or_default().to_vec();
        match kind {
            _ if kernel.len() == 1 || kernel.len() == 3 => {}
            Kind::Float => {
                if !weight.data_type.is_float() {
                    return Err(Fault::Skip(format!("expected a weight of floats, found {}", weight.data_type.name())));
                }
            }
            Kind::QLinear => {
                let scale = node.input(4).ok_or_else(|| "the weight's scale is missing".to_owned())?;
                weight.dequantize(self.resolver.linear(scale, node.input(5), 0, &weight.shape)?)?;
            }
            Kind::Integer => {
                let scale = self.scale_behind(node)?;
                let scale = scale.ok_or_else(|| "the scale of a ConvInteger weight was not found".to_owned())?;
                weight.dequantize(self.resolver.linear(scale, node.input(3), 0, &weight.shape)?)?;
            }
        }
        if kernel.len() == 2 && weight.shape.contains(&0) {
            return Err(Fault::Skip(format!("the weight of dims {:?} has no elements", weight.shape)));
        }
        if kernel.is_empty() {
            let dims = &weight.shape;
            return Err(Fault::Skip(format!("expected a weight of at least 3 dims, found dims {dims:?}")));
        }
        Ok(weight)
    }

    /// The node's groups; `None` where it is no 2-D convolution.
    fn groups(&self, node: &Node<'m>, weight: &Weight<'m>) -> Result<Option<usize>> {
        let [out_channels, _, _, _] = weight.shape[..] else { return Ok(None) };
        let group = self.resolver.flat.integer(node, "group").unwrap_or(1);
        match usize::try_from(group) {
            Ok(groups) if groups > 0 && out_channels % groups == 0 => Ok(Some(groups)),
            _ => {
                let reason = format!("expected groups that divide {out_channels} output channels, found {group}");
                Err(self.file.invalid(node.name(), reason))
            }
        }
    }

    /// Passes a convolution over, which still counts for depth if it is known to be a 2-D one.
    fn skip(&mut self, node: &Node<'m>, kernel: &[usize], depth: usize, reason: String) {
        if kernel.len() == 1 || kernel.len() == 3 {
            return;
        }
        let name = node.name().to_owned();
        if let &[height, width] = kernel {
            self.convolutions.push(Convolution {
                name: name.clone(),
                out_channels: 0,
                in_channels: 0,
                groups: None,
                kernel: [height, width],
                depth,
                depth_source: DepthSource::Graph,
                uses: 1,
                weights: None,
            });
        }
        self.skipped.push(Skipped { name, reason });
    }

    fn kernel_shape(&self, node: &Node<'m>) -> Vec<usize> {
        let dims = self.resolver.flat.attribute(node, "kernel_shape").map_or(&[][..], |attribute| &attribute.ints);
        dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
    }

    /// The weight's scale of a ConvInteger, as ONNX Runtime's dynamic quantisation leaves it: the result is cast
    /// to float and multiplied by (scale of the input, which is computed) * (scale of the weight, a constant).
    fn scale_behind(&mut self, node: &Node<'m>) -> Result<Option<ValueId>, Fault> {
        let Some(output) = node.outputs.first().copied().flatten() else { return Ok(None) };
        for cast in self.consumers_of(output, "Cast") {
            let Some(product) = self.resolver.flat.nodes[cast].outputs.first().copied().flatten() else { continue };
            for multiply in self.consumers_of(product, "Mul") {
                let factors = self.resolver.flat.nodes[multiply].inputs.iter().flatten();
                if let Some(scale) = factors.copied().find_map(|factor| self.constant_factor(factor)) {
                    return Ok(Some(scale));
                }
            }
        }
        Ok(None)
    }

    /// The one constant factor of the product that `value` is.
    fn constant_factor(&self, value: ValueId) -> Option<ValueId> {
        let Ok(Traced::Computed(id)) = self.resolver.trace(value) else { return None };
        let node = &self.resolver.flat.nodes[id];
        let constant =
            |&value: &ValueId| matches!(self.resolver.trace(value), Ok(Traced::Tensor(..) | Traced::Float(_)));
        match (operator(node.proto), &node.inputs[..]) {
            ("Mul", &[Some(a), Some(b)]) => match (constant(&a), constant(&b)) {
                (true, false) => Some(a),
                (false, true) => Some(b),
                // Which one is the weight's cannot be told.
                _ => None,
            },
            _ => None,
        }
    }

    /// The nodes of this operator that take `value`, also as the result of a function.
    fn consumers_of(&mut self, value: ValueId, wanted: &str) -> Vec<NodeId> {
        let flat = self.resolver.flat;
        let consumers = self.consumers.get_or_insert_with(|| {
            let mut consumers: HashMap<ValueId, Vec<NodeId>> = HashMap::new();
            for (id, node) in flat.nodes.iter().enumerate() {
                node.inputs.iter().flatten().for_each(|&value| consumers.entry(value).or_default().push(id));
            }
            consumers
        });
        let mut values = vec![value];
        let mut found = Vec::new();
        while let Some(value) = values.pop() {
            for &id in consumers.get(&value).map_or(&[][..], Vec::as_slice) {
                let node = &flat.nodes[id];
                match node.role {
                    Role::Result => values.extend(node.outputs.iter().flatten()),
                    // One that takes the value a million times would be found, and searched, as often.
                    Role::Operator if operator(node.proto) == wanted && node.inputs.len() <= 2 => found.push(id),
                    _ => {}
                }
            }
        }
        found
    }
}
