//! What is done to a constant tensor before a convolution uses it.

use ndarray::{ArrayView, IxDyn};

use super::tensor::{DataType, Tensor};

/// An operation on a tensor's elements or shape.
#[derive(Debug, Clone)]
pub enum Step {
    /// To a float type.
    Cast(DataType),
    /// Axis i of the result is axis perm\[i\] of the tensor.
    Transpose(Vec<usize>),
    /// To a shape of as many elements.
    Reshape(Vec<usize>),
    /// (q - zero point) * scale.
    Dequantize(Linear),
    /// x / scale, rounded half to even, + zero point, saturated to the type's range.
    Quantize { linear: Linear, least: f32, most: f32 },
}

impl Step {
    /// A transposition of `rank` axes; without `perm` it reverses them.
    ///
    /// # Errors
    /// In words, where `perm` does not name each axis once.
    pub fn transpose(perm: &[i64], rank: usize) -> Result<Self, String> {
        if perm.is_empty() {
            return Ok(Step::Transpose((0..rank).rev().collect()));
        }
        let axes: Vec<usize> = perm.iter().filter_map(|&axis| axis_of(axis, rank)).collect();
        let mut seen = vec![false; rank];
        axes.iter().for_each(|&axis| seen[axis] = true);
        if perm.len() != rank || axes.len() != rank || seen.contains(&false) {
            return Err(format!("expected perm to name each of {rank} axes once, found {perm:?}"));
        }
        Ok(Step::Transpose(axes))
    }

    /// Quantisation to the integer type `to`.
    ///
    /// # Errors
    /// In words, where `to` is none of 8 or 16 bits.
    pub fn quantize(linear: Linear, to: DataType) -> Result<Self, String> {
        let range = to.integers().filter(|_| to.size().is_some_and(|size| size <= 2));
        let (least, most) = range.ok_or_else(|| format!("quantisation to {} is not read", to.name()))?;
        Ok(Step::Quantize { linear, least: least as f32, most: most as f32 })
    }

    /// The shape of the result, of a tensor of `shape`.
    pub fn shape(&self, shape: &[usize]) -> Vec<usize> {
        match self {
            Step::Transpose(perm) => perm.iter().filter_map(|&axis| shape.get(axis).copied()).collect(),
            Step::Reshape(to) => to.clone(),
            _ => shape.to_vec(),
        }
    }

    /// Applies the step to the row-major `values` of a tensor of `shape`.
    ///
    /// # Errors
    /// In words, where they do not fit each other.
    pub fn apply(&self, values: &mut Vec<f32>, shape: &mut Vec<usize>) -> Result<(), String> {
        match self {
            Step::Cast(to) => values.iter_mut().for_each(|value| *value = to.round(*value)),
            Step::Transpose(perm) => {
                let view = ArrayView::from_shape(IxDyn(shape), values).map_err(|e| e.to_string())?;
                *values = view.permuted_axes(IxDyn(perm)).iter().copied().collect();
            }
            Step::Reshape(_) => {}
            Step::Dequantize(linear) => {
                linear.for_each(values, shape, |value, scale, zero| linear.scale_type.round((value - zero) * scale))
            }
            Step::Quantize { linear, least, most } => linear.for_each(values, shape, |value, scale, zero| {
                ((value / scale).round_ties_even() + zero).clamp(*least, *most)
            }),
        }
        *shape = self.shape(shape);
        Ok(())
    }

    /// Appends numbers to `key` that are equal for equal steps only.
    pub fn identity(&self, key: &mut Vec<usize>) {
        match self {
            Step::Cast(to) => key.extend([1, to.0 as usize]),
            Step::Transpose(list) => key.extend([2, list.len()].iter().chain(list)),
            Step::Reshape(list) => key.extend([3, list.len()].iter().chain(list)),
            Step::Dequantize(linear) => key.extend([4].iter().chain(&linear.identity)),
            Step::Quantize { linear, least, most } => {
                key.extend([5, least.to_bits() as usize, most.to_bits() as usize].iter().chain(&linear.identity));
            }
        }
    }
}

/// A constant scale or zero point.
#[derive(Debug)]
pub struct Parameter {
    values: Vec<f32>,
    shape: Vec<usize>,
    data_type: DataType,
    identity: usize,
}

impl Parameter {
    /// The `values` of `tensor`; `identity` is equal for the same tensor only.
    pub fn new(values: Vec<f32>, tensor: &Tensor, identity: usize) -> Self {
        Parameter { values, shape: tensor.shape.clone(), data_type: tensor.data_type, identity }
    }

    /// One float32.
    pub fn scalar(value: f32) -> Self {
        let identity = value.to_bits() as usize;
        Parameter { values: vec![value], shape: Vec::new(), data_type: DataType::FLOAT, identity }
    }
}

/// Scales and zero points of a tensor, or of each index of one of its axes.
#[derive(Debug, Clone)]
pub struct Linear {
    pub scale_type: DataType,
    pub zero_type: Option<DataType>,
    /// As many as indices of `axis`, or one.
    scale: Vec<f32>,
    zero: Vec<f32>,
    axis: usize,
    identity: [usize; 3],
}

impl Linear {
    /// `scale` and `zero` for a tensor of `shape`, in which a negative `axis` counts from the end.
    ///
    /// # Errors
    /// In words, where their shapes do not fit.
    pub fn new(scale: Parameter, zero: Option<Parameter>, axis: i64, shape: &[usize]) -> Result<Self, String> {
        if !scale.data_type.is_float() {
            return Err(format!("expected a scale of floats, found {}", scale.data_type.name()));
        }
        let identity_of_zero = zero.as_ref().map_or(0, |zero| zero.identity);
        let channels = axis_of(axis, shape.len()).map(|axis| (axis, shape[axis]));
        for (what, parameter) in [("scale", Some(&scale)), ("zero point", zero.as_ref())] {
            let Some(Parameter { values, shape: dims, .. }) = parameter else { continue };
            let per_channel = || {
                // (1, channels, 1, 1) is how a scale is laid out that multiplies a convolution's result.
                let layout = matches!(dims[..], [_] | [_, 1, 1] | [1, _, 1, 1]);
                layout && channels.is_some_and(|(_, count)| count == values.len())
            };
            if values.len() != 1 && !per_channel() {
                let channels = channels.map_or("no".to_owned(), |(_, count)| count.to_string());
                return Err(format!("expected a {what} for all or each of {channels} channels, found dims {dims:?}"));
            }
        }
        Ok(Linear {
            scale_type: scale.data_type,
            zero_type: zero.as_ref().map(|zero| zero.data_type),
            axis: channels.map_or(0, |(axis, _)| axis),
            identity: [scale.identity, identity_of_zero, channels.map_or(0, |(axis, _)| axis)],
            scale: scale.values,
            zero: zero.map_or_else(|| vec![0.0], |zero| zero.values),
        })
    }

    /// Replaces each of the row-major `values` by `f(value, scale, zero point)`.
    fn for_each(&self, values: &mut [f32], shape: &[usize], f: impl Fn(f32, f32, f32) -> f32) {
        let inner: usize = shape.iter().skip(self.axis + 1).product();
        let channels = shape.get(self.axis).copied().unwrap_or(1).max(1);
        let of = |list: &[f32], channel: usize| list.get(if list.len() == 1 { 0 } else { channel }).copied();
        for (i, run) in values.chunks_mut(inner.max(1)).enumerate() {
            let (scale, zero) = (of(&self.scale, i % channels), of(&self.zero, i % channels));
            // Both were checked to have as many elements as there are channels.
            let (scale, zero) = (scale.unwrap_or(f32::NAN), zero.unwrap_or(f32::NAN));
            run.iter_mut().for_each(|value| *value = f(*value, scale, zero));
        }
    }
}

/// An axis of a tensor of `rank`, where -1 is the last one.
fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let from_start = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(from_start).ok().filter(|&axis| axis < rank)
}

/// The shape that ONNX's Reshape makes of `from`: 0 keeps the dim (unless `keeps_zero`), one -1 is what remains.
///
/// # Errors
/// In words, where the number of elements would change.
pub fn reshaped(from: &[usize], to: &[i64], keeps_zero: bool) -> Result<Vec<usize>, String> {
    let wrong = || format!("cannot reshape {from:?} to {to:?}");
    let mut shape = Vec::with_capacity(to.len());
    let mut open = None;
    for (i, &dim) in to.iter().enumerate() {
        shape.push(match dim {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !keeps_zero => *from.get(i).ok_or_else(wrong)?,
            dim => usize::try_from(dim).map_err(|_| wrong())?,
        });
    }
    let count: usize = from.iter().product();
    let known = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).ok_or_else(wrong)?;
    if let Some(open) = open {
        shape[open] = count.checked_div(known).ok_or_else(wrong)?;
    }
    let whole = open.map_or(Some(known), |open| known.checked_mul(shape[open]));
    if whole == Some(count) { Ok(shape) } else { Err(wrong()) }
}

/// `shape` without `axes`, each of which must be 1; without axes, without all that are 1.
///
/// # Errors
/// In words, for an axis that is not 1 or not there.
pub fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let mut gone = vec![false; shape.len()];
    match axes {
        None => gone.iter_mut().zip(shape).for_each(|(gone, &dim)| *gone = dim == 1),
        Some(axes) => {
            for &axis in axes {
                let found = axis_of(axis, shape.len()).filter(|&axis| shape[axis] == 1);
                gone[found.ok_or_else(|| format!("cannot squeeze axis {axis} of {shape:?}"))?] = true;
            }
        }
    }
    Ok(shape.iter().zip(gone).filter(|(_, gone)| !gone).map(|(&dim, _)| dim).collect())
}

/// `shape` with an axis of 1 at each of `axes`, which count in the result.
///
/// # Errors
/// In words, for an axis that stands twice or beyond the result.
pub fn unsqueezed(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let mut new = vec![false; shape.len() + axes.len()];
    for &axis in axes {
        let found = axis_of(axis, new.len()).filter(|&axis| !new[axis]);
        let found = found.ok_or_else(|| format!("cannot insert the axes {axes:?} into {shape:?}"))?;
        new[found] = true;
    }
    let mut old = shape.iter();
    Ok(new.into_iter().filter_map(|new| if new { Some(1) } else { old.next().copied() }).collect())
}
