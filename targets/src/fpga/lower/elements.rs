//! Work on single elements: loops over the dimensions of what is written, with neighbours in lanes side by side.

use tcc_ir::Shape;

use super::{power_in, with_last};
use crate::kernel::Scalar;
use crate::lower::Written;
use crate::lower::elements::{Coords, Elements};
use crate::target::TargetError;

/// How the elements of a shape are walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    shape: Shape,
    /// Elements side by side.
    pub lanes: u32,
    /// Whether lanes lie along the last dimension; else along all of them, whose coordinates have to be divided out of an index.
    by_dimensions: bool,
}

/// How many times as many lanes have to be possible to have some that do nothing at the ends of rows.
const IDLE: u32 = 4;

impl Walk {
    /// With so many lanes at the most.
    pub fn new(shape: &Shape, most: u32) -> Walk {
        let last = shape.last().copied().unwrap_or(1);
        let (along, all) = (power_in(last, most), power_in(shape.count(), most));
        let guarded = 1 << most.min(last as u32).max(1).ilog2();
        if guarded >= IDLE * along.max(all) {
            return Walk { shape: shape.clone(), lanes: guarded, by_dimensions: true };
        }
        let by_dimensions = shape.rank() <= 1 || along * 2 >= all || along >= 8;
        Walk { shape: shape.clone(), lanes: if by_dimensions { along } else { all }, by_dimensions }
    }

    /// Has each element done something with, by its coordinates.
    pub fn write<'a>(
        &self,
        elements: &mut Elements<'a>,
        work: impl FnOnce(&mut Elements<'a>, &Coords) -> Result<(), TargetError>,
    ) -> Result<Written, TargetError> {
        let (shape, lanes) = (&self.shape, self.lanes);
        let count = shape.count();
        let about = format!("{count} elements, {lanes} at a time");
        let builder = &mut elements.builder;
        let (lane, block) = (builder.thread(), builder.block(0));
        let first = builder.scaled(block, lanes as i32);
        let index = builder.add(first, lane);
        let index = builder.keep("index", Scalar::I32, index);
        if !self.by_dimensions {
            let coords = elements.walk(shape, index);
            work(elements, &coords)?;
            return Ok(([(count as u32) / lanes, 1, 1], about));
        }
        let Some((&last, lead)) = shape.split_last() else {
            work(elements, &Coords::new())?;
            return Ok(([1, 1, 1], about));
        };
        let is_guarded = !last.is_multiple_of(lanes as usize);
        if is_guarded {
            let inside = elements.builder.below(index, last as i32);
            elements.builder.when(inside);
        }
        let groups = (last as u32).div_ceil(lanes);
        let Some((&middle, outer)) = lead.split_last() else {
            work(elements, &with_last(&[], index))?;
            if is_guarded {
                elements.builder.end();
            }
            return Ok(([groups, 1, 1], about));
        };
        let outer = Shape::new(outer.iter().copied()).unwrap_or_default();
        let number = elements.builder.block(2);
        let mut coords = elements.coords_of(&outer, number);
        let zero = elements.builder.integer(0);
        coords.push(if middle == 1 { zero } else { elements.builder.block(1) });
        let coords = with_last(&coords, if last == 1 { zero } else { index });
        work(elements, &coords)?;
        if is_guarded {
            elements.builder.end();
        }
        Ok(([groups, middle as u32, outer.count() as u32], about))
    }
}
