//! Tensors as files hold them: element types, byte orders, strided views of a storage.

use std::ops::Range;

/// The element types whose values can become float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a float32.
    Bf16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision, rounded to single.
    F64,
    /// Signed byte, taken as a number.
    I8,
    /// Unsigned byte, taken as a number.
    U8,
}

impl Element {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    /// Whether the type is a floating-point one: only those hold weights that need no scale.
    pub(crate) fn is_float(self) -> bool {
        !matches!(self, Element::I8 | Element::U8)
    }

    /// The values in `bytes`; bytes that make no whole element at the end are left out.
    pub(crate) fn decode(self, bytes: &[u8], order: ByteOrder) -> Vec<f32> {
        match self {
            Element::I8 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
            Element::U8 => bytes.iter().map(|&byte| f32::from(byte)).collect(),
            Element::F16 => map::<2>(bytes, order, |le| half::f16::from_le_bytes(le).to_f32()),
            Element::Bf16 => map::<2>(bytes, order, |le| half::bf16::from_le_bytes(le).to_f32()),
            Element::F32 => map::<4>(bytes, order, f32::from_le_bytes),
            Element::F64 => map::<8>(bytes, order, |le| f64::from_le_bytes(le) as f32),
        }
    }
}

fn map<const N: usize>(bytes: &[u8], order: ByteOrder, value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    match order {
        ByteOrder::Little => elements.iter().map(|&le| value(le)).collect(),
        ByteOrder::Big => elements
            .iter()
            .map(|&(mut be)| {
                be.reverse();
                value(be)
            })
            .collect(),
    }
}

/// Which byte of an element comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// An element type as a file names it, readable or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Dtype {
    /// Values of this type can be read.
    Readable(Element),
    /// A floating-point type that is not read (fp8, fp4), by its name in the file.
    UnreadableFloat(String),
    /// Anything else: integers, booleans, complex numbers, quantised values.
    Other(String),
}

/// An array laid over a storage: sizes, strides and offset count elements, not bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// Length of each dimension.
    pub(crate) shape: Vec<usize>,
    /// Distance between neighbours along each dimension.
    pub(crate) strides: Vec<usize>,
    /// Place of the first element.
    pub(crate) offset: usize,
}

impl View {
    /// Number of elements; `None` if it overflows.
    pub(crate) fn elements(&self) -> Option<usize> {
        elements(&self.shape)
    }

    /// Checks that every element lies in a storage of `available` elements.
    ///
    /// # Errors
    /// What was expected and what was found, without the tensor's name.
    pub(crate) fn check(&self, available: usize) -> Result<(), String> {
        if self.strides.len() != self.shape.len() {
            return Err(format!("{} dimensions with {} strides", self.shape.len(), self.strides.len()));
        }
        let elements = self.elements().ok_or_else(|| format!("the size of shape {:?} overflows", self.shape))?;
        if elements == 0 {
            return Ok(());
        }
        let last =
            self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (&dim, &stride)| {
                last.checked_add(dim.checked_sub(1)?.checked_mul(stride)?)
            });
        match last {
            Some(last) if last < available => Ok(()),
            _ => Err(format!(
                "shape {:?} with strides {:?} from element {} reaches outside its storage of {available} elements",
                self.shape, self.strides, self.offset
            )),
        }
    }

    /// The elements' places when they follow each other without gaps, in row-major order.
    fn run(&self) -> Option<Range<usize>> {
        let mut step = 1usize;
        for (&dim, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if dim != 1 && stride != step {
                return None;
            }
            step = step.checked_mul(dim)?;
        }
        Some(self.offset..self.offset.checked_add(step)?)
    }
}

/// Number of elements of `shape`; `None` if it overflows.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The values of `view` over `storage` in row-major order.
///
/// The caller bounds the number of elements: a stride of 0 makes a large array of a small storage.
///
/// # Errors
/// As [`View::check`].
pub(crate) fn gather(storage: &[u8], element: Element, order: ByteOrder, view: &View) -> Result<Vec<f32>, String> {
    let available = storage.len() / element.size();
    view.check(available)?;
    if view.shape.contains(&0) {
        return Ok(Vec::new());
    }
    let outside = || "reaches outside its storage".to_owned();
    if let Some(run) = view.run() {
        let bytes = run.start.checked_mul(element.size()).zip(run.end.checked_mul(element.size()));
        let bytes = bytes.and_then(|(start, end)| storage.get(start..end)).ok_or_else(outside)?;
        return Ok(element.decode(bytes, order));
    }
    let storage = element.decode(storage, order);
    let mut values = Vec::with_capacity(view.elements().unwrap_or(0));
    let mut index = vec![0usize; view.shape.len()];
    let mut place = view.offset;
    // An odometer over the dimensions; `check` has shown that no place is outside and none overflows.
    'elements: loop {
        values.push(*storage.get(place).ok_or_else(outside)?);
        for (axis, i) in index.iter_mut().enumerate().rev() {
            let (dim, stride) = (view.shape[axis], view.strides[axis]);
            *i += 1;
            if *i < dim {
                place += stride;
                continue 'elements;
            }
            place -= stride * (dim - 1);
            *i = 0;
        }
        return Ok(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn every_element_type_in_both_byte_orders() {
        // -1.5 in each type, by IEEE 754 (bf16: the upper half of 0xbfc00000).
        for (element, big) in [
            (Element::F16, &[0xbe, 0x00][..]),
            (Element::Bf16, &[0xbf, 0xc0]),
            (Element::F32, &[0xbf, 0xc0, 0, 0]),
            (Element::F64, &[0xbf, 0xf8, 0, 0, 0, 0, 0, 0]),
        ] {
            let little: Vec<u8> = big.iter().rev().copied().collect();
            assert_eq!(element.decode(big, ByteOrder::Big), [-1.5], "{element:?}");
            assert_eq!(element.decode(&little, ByteOrder::Little), [-1.5], "{element:?}");
        }
        assert_eq!(Element::I8.decode(&[0xff, 2], ByteOrder::Little), [-1.0, 2.0]);
        assert_eq!(Element::U8.decode(&[0xff, 2], ByteOrder::Big), [255.0, 2.0]);
    }

    #[test]
    fn gathers_transposed_and_offset_views() {
        let storage = bytes(&[9.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let rows = View { shape: vec![2, 3], strides: vec![3, 1], offset: 1 };
        assert_eq!(gather(&storage, Element::F32, ByteOrder::Little, &rows), Ok(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        let columns = View { shape: vec![3, 2], strides: vec![1, 3], offset: 1 };
        assert_eq!(gather(&storage, Element::F32, ByteOrder::Little, &columns), Ok(vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        let spread = View { shape: vec![2, 2], strides: vec![0, 1], offset: 0 };
        assert_eq!(gather(&storage, Element::F32, ByteOrder::Little, &spread), Ok(vec![9.0, 0.0, 9.0, 0.0]));
        let scalar = View { shape: vec![], strides: vec![], offset: 2 };
        assert_eq!(gather(&storage, Element::F32, ByteOrder::Little, &scalar), Ok(vec![1.0]));
        let none = View { shape: vec![0, 3], strides: vec![9, 7], offset: 100 };
        assert_eq!(gather(&storage, Element::F32, ByteOrder::Little, &none), Ok(vec![]));
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for (shape, strides, offset) in [
            (vec![2, 3], vec![3, 1], 1),
            (vec![2], vec![usize::MAX], 0),
            (vec![usize::MAX, 2], vec![0, 0], 0),
            (vec![1], vec![1], usize::MAX),
            (vec![2, 2], vec![1], 0),
        ] {
            let view = View { shape, strides, offset };
            assert!(gather(&bytes(&[0.0; 6]), Element::F32, ByteOrder::Little, &view).is_err(), "{view:?}");
        }
    }
}
