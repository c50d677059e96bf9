//! Resizing of images: along each axis, selection of the nearest element or a product with an interpolation matrix.

use tcc_ir::ops::{MatMul, UnaryFn};
use tcc_ir::{DType, Tensor, ValueId};

use super::tables;
use crate::onnx::context::NodeContext;
use crate::onnx::error::LowerError;
use crate::onnx::registry::{Entry, onnx};

pub(super) const FAMILY: &[Entry] = &[onnx("Resize", resize), onnx("Upsample", upsample)];

/// Positions farther outside than this are taken to be here: far beyond any axis, and still exact in arithmetic.
const FARTHEST: f64 = (1u64 << 48) as f64;

/// How an output position maps to a position in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinates {
    AlignCorners,
    Asymmetric,
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    TfCropAndResize,
}

/// Which neighbour is nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearest {
    Ceil,
    Floor,
    RoundPreferCeil,
    RoundPreferFloor,
}

/// The filter between elements.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Nearest(Nearest),
    Linear,
    Cubic { a: f64 },
}

/// How every axis is resized.
#[derive(Clone, Copy, Debug)]
struct Resampling {
    filter: Filter,
    coordinates: Coordinates,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f32,
}

/// One axis to be resized.
#[derive(Clone, Copy, Debug)]
struct AxisPlan {
    len: usize,
    new_len: usize,
    scale: f64,
    /// The part of the axis that is shown, as fractions of it.
    region: (f64, f64),
}

fn resize(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    // Operator set 10 had the scales as input 1, and one way to map positions.
    let old = cx.opset() < 11;
    let (scales, sizes, region) = if old { (1, None, None) } else { (2, Some(3), Some(1)) };
    let scales = floats(cx, Some(scales))?;
    let sizes = match sizes {
        Some(index) => cx.optional_const_i64s(index)?.filter(|sizes| !sizes.is_empty()),
        None => None,
    };
    let region = floats(cx, region)?;
    let resampling = Resampling {
        filter: filter(cx, if old { Nearest::Floor } else { Nearest::RoundPreferFloor })?,
        coordinates: coordinates(cx, if old { Coordinates::Asymmetric } else { Coordinates::HalfPixel })?,
        antialias: cx.flag("antialias", false)?,
        exclude_outside: cx.flag("exclude_outside", false)?,
        extrapolation: cx.float_or("extrapolation_value", 0.0)?,
    };
    resample(cx, x, scales, sizes, region, &resampling)
}

fn upsample(cx: &mut NodeContext<'_>) -> Result<Vec<ValueId>, LowerError> {
    let x = cx.input(0)?;
    // The scales were an attribute before operator set 9.
    let scales = match cx.floats("scales")? {
        Some(scales) => Some(scales.iter().map(|&scale| f64::from(scale)).collect()),
        None => floats(cx, Some(1))?,
    };
    let resampling = Resampling {
        filter: filter(cx, Nearest::Floor)?,
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
    };
    resample(cx, x, scales, None, None, &resampling)
}

/// A constant input of floats; an empty one counts as left out.
fn floats(cx: &NodeContext<'_>, index: Option<usize>) -> Result<Option<Vec<f64>>, LowerError> {
    let Some(index) = index.filter(|&index| cx.optional(index).is_some()) else { return Ok(None) };
    let values = cx.const_tensor(index)?.to_f64s()?;
    Ok(Some(values).filter(|values| !values.is_empty()))
}

fn filter(cx: &NodeContext<'_>, default: Nearest) -> Result<Filter, LowerError> {
    Ok(match cx.string("mode")?.unwrap_or("nearest") {
        "nearest" => Filter::Nearest(match cx.string("nearest_mode")? {
            None => default,
            Some("ceil") => Nearest::Ceil,
            Some("floor") => Nearest::Floor,
            Some("round_prefer_ceil") => Nearest::RoundPreferCeil,
            Some("round_prefer_floor") => Nearest::RoundPreferFloor,
            Some(other) => return Err(LowerError::unsupported(format!("`nearest_mode` `{other}` is not one of ONNX's"))),
        }),
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic { a: cx.float_or("cubic_coeff_a", -0.75)?.into() },
        other => return Err(LowerError::unsupported(format!("`mode` `{other}` is not one of ONNX's"))),
    })
}

fn coordinates(cx: &NodeContext<'_>, default: Coordinates) -> Result<Coordinates, LowerError> {
    Ok(match cx.string("coordinate_transformation_mode")? {
        None => default,
        Some("align_corners") => Coordinates::AlignCorners,
        Some("asymmetric") => Coordinates::Asymmetric,
        Some("half_pixel") => Coordinates::HalfPixel,
        Some("half_pixel_symmetric") => Coordinates::HalfPixelSymmetric,
        Some("pytorch_half_pixel") => Coordinates::PytorchHalfPixel,
        Some("tf_crop_and_resize") => Coordinates::TfCropAndResize,
        Some(other) => {
            return Err(LowerError::unsupported(format!(
                "`coordinate_transformation_mode` `{other}` is not one of ONNX's"
            )));
        }
    })
}

fn resample(
    cx: &mut NodeContext<'_>,
    x: ValueId,
    scales: Option<Vec<f64>>,
    sizes: Option<Vec<i64>>,
    region: Option<Vec<f64>>,
    resampling: &Resampling,
) -> Result<Vec<ValueId>, LowerError> {
    let dims = cx.shape(x).to_vec();
    let axes = match cx.ints("axes")? {
        Some(axes) => axes.iter().map(|&axis| cx.axis(axis, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let lens: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
    let targets = targets(cx, &lens, scales, sizes)?;
    let region = match region {
        Some(region) if resampling.coordinates == Coordinates::TfCropAndResize => {
            if region.len() != 2 * axes.len() {
                return Err(LowerError::invalid(format!("`roi` holds {} numbers for {} axes", region.len(), axes.len())));
            }
            Some(region)
        }
        _ => None,
    };
    let dtype = cx.dtype(x);
    let mut result = x;
    for (index, (&axis, &(new_len, scale))) in axes.iter().zip(&targets).enumerate() {
        let region = region.as_ref().map_or((0.0, 1.0), |region| (region[index], region[axes.len() + index]));
        let plan = AxisPlan { len: lens[index], new_len, scale, region };
        if new_len == plan.len && scale == 1.0 && region == (0.0, 1.0) {
            continue;
        }
        if plan.len == 0 && new_len > 0 {
            return Err(LowerError::invalid(format!("axis {axis} is empty and cannot be resized to {new_len}")));
        }
        result = resampling.resize_axis(cx, result, axis, &plan)?;
    }
    if cx.dtype(result) != dtype {
        // Images of integers were interpolated in floats.
        result = cx.unary(UnaryFn::Round, result)?;
    }
    Ok(vec![cx.cast(result, dtype)?])
}

/// New extent and scale of each axis.
fn targets(
    cx: &NodeContext<'_>,
    lens: &[usize],
    scales: Option<Vec<f64>>,
    sizes: Option<Vec<i64>>,
) -> Result<Vec<(usize, f64)>, LowerError> {
    let wrong = |count: usize| LowerError::invalid(format!("{count} scales or sizes are given for {} axes", lens.len()));
    match (scales, sizes) {
        (_, Some(sizes)) => {
            let sizes = tables::counts("sizes", &sizes, 0)?;
            if sizes.len() != lens.len() {
                return Err(wrong(sizes.len()));
            }
            let ratios = || sizes.iter().zip(lens).map(|(&size, &len)| size as f64 / len as f64);
            let common = match cx.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
                "stretch" => return Ok(sizes.iter().copied().zip(ratios()).collect()),
                "not_larger" => ratios().fold(f64::INFINITY, f64::min),
                "not_smaller" => ratios().fold(0.0, f64::max),
                other => {
                    return Err(LowerError::unsupported(format!(
                        "`keep_aspect_ratio_policy` `{other}` is not one of ONNX's"
                    )));
                }
            };
            lens.iter().map(|&len| extent((len as f64 * common).round()).map(|new| (new, common))).collect()
        }
        (Some(scales), None) => {
            if scales.len() != lens.len() {
                return Err(wrong(scales.len()));
            }
            lens.iter()
                .zip(scales)
                .map(|(&len, scale)| extent((len as f64 * scale).floor()).map(|new| (new, scale)))
                .collect()
        }
        (None, None) => Err(LowerError::invalid("neither scales nor sizes are given")),
    }
}

fn extent(len: f64) -> Result<usize, LowerError> {
    if (0.0..=f64::from(i32::MAX)).contains(&len) {
        Ok(len as usize)
    } else {
        Err(LowerError::invalid(format!("an axis cannot be resized to {len}")))
    }
}

impl Resampling {
    fn resize_axis(
        &self,
        cx: &mut NodeContext<'_>,
        x: ValueId,
        axis: usize,
        plan: &AxisPlan,
    ) -> Result<ValueId, LowerError> {
        tables::check_table(&[plan.new_len])?;
        let positions: Vec<f64> = (0..plan.new_len).map(|index| self.position(index as f64, plan)).collect();
        let resized = match self.filter {
            Filter::Nearest(nearest) => {
                let last = plan.len as i64 - 1;
                let sources = positions.iter().map(|&position| (nearest.of(position) as i64).clamp(0, last)).collect();
                let sources = tables::indices(cx, sources);
                cx.gather(x, sources, axis)?
            }
            Filter::Linear | Filter::Cubic { .. } => self.interpolate(cx, x, axis, plan, &positions)?,
        };
        self.extrapolate(cx, resized, axis, plan, &positions)
    }

    /// The position in the input that output position `index` shows.
    fn position(&self, index: f64, plan: &AxisPlan) -> f64 {
        let (len, new_len) = (plan.len as f64, plan.scale * plan.len as f64);
        let half_pixel = (index + 0.5) / plan.scale - 0.5;
        let position = match self.coordinates {
            Coordinates::AlignCorners if new_len == 1.0 => 0.0,
            Coordinates::AlignCorners => index * (len - 1.0) / (new_len - 1.0),
            Coordinates::Asymmetric => index / plan.scale,
            Coordinates::HalfPixel => half_pixel,
            // The centre of the input stays in the centre, even where the new extent was rounded.
            Coordinates::HalfPixelSymmetric => len / 2.0 * (1.0 - plan.new_len as f64 / new_len) + half_pixel,
            Coordinates::PytorchHalfPixel if new_len == 1.0 => -0.5,
            Coordinates::PytorchHalfPixel => half_pixel,
            Coordinates::TfCropAndResize => {
                let (start, end) = plan.region;
                let step = if new_len == 1.0 { 0.5 } else { index / (new_len - 1.0) };
                (start + step * (end - start)) * (len - 1.0)
            }
        };
        // A hostile region may point anywhere; beyond the edge it is all the same how far.
        position.clamp(-FARTHEST, FARTHEST)
    }

    /// Weights of neighbouring elements for a position: index of the first, and their weights.
    fn weights(&self, position: f64, plan: &AxisPlan) -> (i64, Vec<f64>) {
        // Of a position on an element the one to the left counts as its neighbour, as in ONNX's reference.
        let ratio = if position.fract() == 0.0 { 1.0 } else { position - position.floor() };
        let base = (position - ratio).round() as i64;
        let reach = if matches!(self.filter, Filter::Cubic { .. }) { 2.0 } else { 1.0 };
        // When shrinking with antialiasing, the filter is stretched to cover all elements that fall together.
        let squeeze = if self.antialias { plan.scale.min(1.0) } else { 1.0 };
        let first = (-reach / squeeze).floor() as i64 + 1;
        let mut weights: Vec<f64> =
            (first..2 - first).map(|offset| self.kernel(squeeze * (offset as f64 - ratio))).collect();
        if self.antialias {
            normalise(&mut weights);
        }
        if self.exclude_outside {
            for (offset, weight) in (base + first..).zip(&mut weights) {
                if !(0..plan.len as i64).contains(&offset) {
                    *weight = 0.0;
                }
            }
            normalise(&mut weights);
        }
        (base + first, weights)
    }

    /// The filter's value at a distance.
    fn kernel(&self, distance: f64) -> f64 {
        let x = distance.abs();
        match self.filter {
            Filter::Cubic { a } if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Filter::Cubic { a } if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Filter::Cubic { .. } => 0.0,
            Filter::Linear | Filter::Nearest(_) => (1.0 - x).max(0.0),
        }
    }

    fn interpolate(
        &self,
        cx: &mut NodeContext<'_>,
        x: ValueId,
        axis: usize,
        plan: &AxisPlan,
        positions: &[f64],
    ) -> Result<ValueId, LowerError> {
        tables::check_table(&[plan.new_len, plan.len])?;
        if self.antialias && plan.scale < 1.0 {
            // The stretched filter has about 4 / scale taps for every new element.
            tables::check_table(&[plan.new_len, (4.0 / plan.scale).min(f64::from(i32::MAX)) as usize])?;
        }
        let mut matrix = vec![0.0; plan.new_len * plan.len];
        for (row, &position) in positions.iter().enumerate() {
            let (first, weights) = self.weights(position, plan);
            for (offset, weight) in (first..).zip(weights) {
                // Elements beyond the edge repeat the edge.
                let column = offset.clamp(0, plan.len as i64 - 1) as usize;
                matrix[row * plan.len + column] += weight;
            }
        }
        let x = if cx.dtype(x).is_float() { x } else { cx.cast(x, DType::F32)? };
        let dtype = cx.dtype(x);
        let matrix = tables::table(cx, dtype, &[plan.new_len, plan.len], matrix)?;
        let dims = cx.shape(x).to_vec();
        let (before, after) = (&dims[..axis], &dims[axis + 1..]);
        let (rows, columns) = (before.iter().product(), after.iter().product());
        let product = if columns == 1 {
            let x = cx.reshape(x, &[rows, plan.len])?;
            cx.add(MatMul { transpose_b: true, ..MatMul::default() }, &[x, matrix])?
        } else {
            let x = cx.reshape(x, &[rows, plan.len, columns])?;
            cx.mat_mul(matrix, x)?
        };
        let new: Vec<usize> = before.iter().copied().chain([plan.new_len]).chain(after.iter().copied()).collect();
        cx.reshape(product, &new)
    }

    /// Puts the extrapolation value where a cropped region reaches beyond the input.
    fn extrapolate(
        &self,
        cx: &mut NodeContext<'_>,
        x: ValueId,
        axis: usize,
        plan: &AxisPlan,
        positions: &[f64],
    ) -> Result<ValueId, LowerError> {
        let inside = 0.0..=plan.len as f64 - 1.0;
        let outside: Vec<bool> = positions.iter().map(|position| !inside.contains(position)).collect();
        if self.coordinates != Coordinates::TfCropAndResize || !outside.contains(&true) {
            return Ok(x);
        }
        let mask = cx.constant(Tensor::from_bools(tcc_ir::Shape::vector(outside.len()), outside)?);
        let mut dims = vec![1; cx.rank(x)];
        dims[axis] = plan.new_len;
        let mask = cx.reshape(mask, &dims)?;
        let value = cx.scalar_like(x, self.extrapolation.into());
        cx.select(mask, value, x)
    }
}

impl Nearest {
    fn of(self, position: f64) -> f64 {
        match self {
            Nearest::Ceil => position.ceil(),
            Nearest::Floor => position.floor(),
            Nearest::RoundPreferCeil => (position + 0.5).floor(),
            Nearest::RoundPreferFloor => (position - 0.5).ceil(),
        }
    }
}

fn normalise(weights: &mut [f64]) {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
}
