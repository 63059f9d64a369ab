//! What is done to a constant tensor before a convolution uses it.

use std::rc::Rc;

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
                linear.for_each(values, shape, |value, scale, zero| linear.scale_type.round((value - zero) * scale))?;
            }
            Step::Quantize { linear, least, most } => linear.for_each(values, shape, |value, scale, zero| {
                ((value / scale).round_ties_even() + zero).clamp(*least, *most)
            })?,
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
            Step::Dequantize(linear) => {
                key.push(4);
                linear.identity(key);
            }
            Step::Quantize { linear, least, most } => {
                key.extend([5, least.to_bits() as usize, most.to_bits() as usize]);
                linear.identity(key);
            }
        }
    }
}

/// A constant scale or zero point. Its elements are read only when weights are: any number of nodes may share it.
#[derive(Debug, Clone)]
pub enum Parameter {
    Tensor(Rc<Tensor>),
    Float(f32),
}

impl Parameter {
    fn data_type(&self) -> DataType {
        match self {
            Parameter::Tensor(tensor) => tensor.data_type,
            Parameter::Float(_) => DataType::FLOAT,
        }
    }

    fn dims(&self) -> &[usize] {
        match self {
            Parameter::Tensor(tensor) => &tensor.shape,
            Parameter::Float(_) => &[],
        }
    }

    fn values(&self) -> Result<Vec<f32>, String> {
        match self {
            Parameter::Tensor(tensor) => tensor.floats(),
            Parameter::Float(value) => Ok(vec![*value]),
        }
    }

    /// Equal for the same tensor, which stays where it is while its file is read, or for equal numbers.
    fn identity(&self) -> [usize; 2] {
        match self {
            Parameter::Tensor(tensor) => [1, Rc::as_ptr(tensor).addr()],
            Parameter::Float(value) => [2, value.to_bits() as usize],
        }
    }
}

/// Scales and zero points of a tensor, or of each index of one of its axes.
#[derive(Debug, Clone)]
pub struct Linear {
    pub scale_type: DataType,
    pub zero_type: Option<DataType>,
    /// One element, or as many as there are indices of `axis`.
    scale: Parameter,
    zero: Option<Parameter>,
    axis: usize,
}

impl Linear {
    /// `scale` and `zero` for a tensor of `shape`, in which a negative `axis` counts from the end.
    ///
    /// # Errors
    /// In words, where their shapes do not fit.
    pub fn new(scale: Parameter, zero: Option<Parameter>, axis: i64, shape: &[usize]) -> Result<Self, String> {
        if !scale.data_type().is_float() {
            return Err(format!("expected a scale of floats, found {}", scale.data_type().name()));
        }
        let channels = axis_of(axis, shape.len()).map(|axis| (axis, shape[axis]));
        for (what, parameter) in [("scale", Some(&scale)), ("zero point", zero.as_ref())] {
            let Some(dims) = parameter.map(Parameter::dims) else { continue };
            let count: usize = dims.iter().product();
            let per_channel = || {
                // (1, channels, 1, 1) is how a scale is laid out that multiplies a convolution's result.
                let layout = matches!(dims, [_] | [_, 1, 1] | [1, _, 1, 1]);
                layout && channels.is_some_and(|(_, channels)| channels == count)
            };
            if count != 1 && !per_channel() {
                let channels = channels.map_or("no".to_owned(), |(_, count)| count.to_string());
                return Err(format!("expected a {what} for all or each of {channels} channels, found dims {dims:?}"));
            }
        }
        Ok(Linear {
            scale_type: scale.data_type(),
            zero_type: zero.as_ref().map(Parameter::data_type),
            axis: channels.map_or(0, |(axis, _)| axis),
            scale,
            zero,
        })
    }

    /// Appends numbers to `key` that are equal for equal conversions only.
    fn identity(&self, key: &mut Vec<usize>) {
        key.push(self.axis);
        key.extend(self.scale.identity());
        key.extend(self.zero.as_ref().map_or([0, 0], Parameter::identity));
    }

    /// Replaces each of the row-major `values` by `f(value, scale, zero point)`.
    fn for_each(&self, values: &mut [f32], shape: &[usize], f: impl Fn(f32, f32, f32) -> f32) -> Result<(), String> {
        let scales = self.scale.values()?;
        let zeros = self.zero.as_ref().map_or_else(|| Ok(vec![0.0]), Parameter::values)?;
        let inner: usize = shape.iter().skip(self.axis + 1).product();
        let channels = shape.get(self.axis).copied().unwrap_or(1).max(1);
        let of = |list: &[f32], channel: usize| list.get(if list.len() == 1 { 0 } else { channel }).copied();
        for (i, run) in values.chunks_mut(inner.max(1)).enumerate() {
            let (scale, zero) = (of(&scales, i % channels), of(&zeros, i % channels));
            // Both were checked to have as many elements as there are channels.
            let (scale, zero) = (scale.unwrap_or(f32::NAN), zero.unwrap_or(f32::NAN));
            run.iter_mut().for_each(|value| *value = f(*value, scale, zero));
        }
        Ok(())
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
