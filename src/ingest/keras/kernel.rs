//! From a Keras kernel to a convolution's weight.

use ndarray::{Array4, ArrayView4};

use super::super::{Convolution, DepthSource};

/// What a 4-D array of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// (kh, kw, in / groups, out).
    Convolution { groups: Option<usize> },
    /// (kh, kw, in, multiplier): each input channel has its own filters.
    Depthwise,
    /// No ordinary convolution; why.
    Other(&'static str),
}

/// What a layer's class makes of its array `leaf` (a name, or the index of a variable); `None` for classes
/// that are not known.
pub(super) fn by_class(class: &str, leaf: &str, groups: Option<usize>) -> Option<Kind> {
    Some(match class {
        "Conv2D" | "Convolution2D" => Kind::Convolution { groups },
        "DepthwiseConv2D" => Kind::Depthwise,
        "SeparableConv2D" | "SeparableConvolution2D" => match leaf {
            "depthwise_kernel" | "0" => Kind::Depthwise,
            // The second convolution has a kernel of 1x1 over all channels.
            _ => Kind::Convolution { groups: Some(1) },
        },
        "Conv2DTranspose" | "Convolution2DTranspose" | "Deconvolution2D" => Kind::Other("a transposed convolution"),
        "ConvLSTM2D" | "ConvLSTM2DCell" => Kind::Other("a recurrent layer's kernel"),
        _ => return None,
    })
}

/// What the names of a layer and of its array say, where no class is known.
pub(super) fn by_name(layer: &str, leaf: &str) -> Kind {
    let layer = layer.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| layer.contains(word));
    match leaf {
        _ if has(&["transpose", "deconv"]) => Kind::Other("a transposed convolution by its name"),
        _ if has(&["conv_lstm", "convlstm"]) => Kind::Other("a recurrent layer's kernel by its name"),
        "depthwise_kernel" => Kind::Depthwise,
        "pointwise_kernel" => Kind::Convolution { groups: Some(1) },
        "kernel" | "0" | "1" if has(&["depthwise_conv", "depthwiseconv"]) => Kind::Depthwise,
        "0" if has(&["separable_conv", "separableconv"]) => Kind::Depthwise,
        "1" if has(&["separable_conv", "separableconv"]) => Kind::Convolution { groups: Some(1) },
        "kernel" | "0" => Kind::Convolution { groups: None },
        _ => Kind::Other("4-D, but no kernel by its name"),
    }
}

/// A convolution without its weights and place, of a kernel's shape.
pub(super) fn convolution(
    name: String,
    [height, width, input, last]: [usize; 4],
    depthwise: bool,
    groups: Option<usize>,
) -> Convolution {
    let (out_channels, in_channels, groups) = if depthwise {
        (input.saturating_mul(last), input, Some(input))
    } else {
        (last, input.saturating_mul(groups.unwrap_or(1)), groups)
    };
    Convolution {
        name,
        out_channels,
        in_channels,
        groups,
        kernel: [height, width],
        depth: 0,
        depth_source: DepthSource::Order,
        uses: 1,
        weights: None,
    }
}

/// `values` of (kh, kw, in, out) as (out, in, kh, kw), or of a depthwise kernel (kh, kw, in, multiplier) as
/// (in * multiplier, 1, kh, kw) with the input channel as the slower index: TensorFlow's order of the outputs.
///
/// # Errors
/// As many values as the shape does not have.
pub(super) fn weights(values: &[f32], shape: [usize; 4], depthwise: bool) -> Result<Array4<f32>, String> {
    let [height, width, input, last] = shape;
    let kernel = ArrayView4::from_shape((height, width, input, last), values).map_err(|e| e.to_string())?;
    if !depthwise {
        return Ok(kernel.permuted_axes([3, 2, 0, 1]).as_standard_layout().into_owned());
    }
    let by_channel = kernel.permuted_axes([2, 3, 0, 1]).as_standard_layout().into_owned();
    let outputs = input.checked_mul(last).ok_or("the number of outputs overflows")?;
    by_channel.into_shape_with_order((outputs, 1, height, width)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that tell their own place: 1000 y + 100 x + 10 i + o.
    fn kernel(input: usize, last: usize) -> Vec<f32> {
        let mut values = Vec::new();
        for y in 0..3 {
            for x in 0..3 {
                for i in 0..input {
                    values.extend((0..last).map(|o| (1000 * y + 100 * x + 10 * i + o) as f32));
                }
            }
        }
        values
    }

    #[test]
    fn kernels_are_transposed_to_out_in_height_width() {
        let weights = weights(&kernel(2, 4), [3, 3, 2, 4], false).unwrap();
        assert_eq!(weights.shape(), [4, 2, 3, 3]);
        assert_eq!(weights[[3, 1, 2, 0]], 2013.0);
        assert!(weights.is_standard_layout());
    }

    #[test]
    fn depthwise_outputs_follow_their_input() {
        let weights = weights(&kernel(4, 2), [3, 3, 4, 2], true).unwrap();
        assert_eq!(weights.shape(), [8, 1, 3, 3]);
        // Output 2 i + m.
        assert_eq!(weights[[7, 0, 1, 2]], 1231.0);
    }

    #[test]
    fn classes_and_names() {
        assert_eq!(by_class("SeparableConv2D", "0", None), Some(Kind::Depthwise));
        assert_eq!(by_class("Dense", "kernel", None), None);
        assert!(matches!(by_name("conv2d_transpose_3", "0"), Kind::Other(_)));
        assert_eq!(by_name("conv2d_3", "0"), Kind::Convolution { groups: None });
        assert_eq!(by_name("depthwise_conv2d", "kernel"), Kind::Depthwise);
        assert!(matches!(by_name("conv2d", "gamma"), Kind::Other(_)));
    }
}
