//! Where the elements of a value lie in memory.
//!
//! A value is a matrix: its last dimension goes along the lanes, all others are rows. A row takes as many vectors as it has
//! blocks of lanes, and each of them a vector for each byte of an element, its byte planes, which lie in slices of their own
//! so that they can be read in one cycle. A value with a single column is in all lanes alike: what has one number for each
//! row meets whole rows then without being moved.

use tcc_ir::{DType, Shape};

use super::LpuMachine;

/// An address of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The slice.
    pub slice: u8,
    /// The address of a vector in it.
    pub address: u16,
}

/// How a value lies in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The elements as they are stored, of at least a byte.
    pub dtype: DType,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row. A single one is in all lanes.
    pub columns: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// How many rows that follow each other lie in different slices, for units that read as many at once.
    pub stripes: usize,
    /// Into how many lots of rows it is cut, each of which lies elsewhere.
    pub lots: usize,
    /// The first address in each slice, for each lot: those that rows and planes take turns in if rows are striped, else sets of
    /// one for each byte plane, which the blocks of a row take turns in.
    pub slices: Vec<Place>,
}

impl Layout {
    /// Rows and columns of a shape.
    pub fn matrix(shape: &Shape) -> (usize, usize) {
        match shape.split_last() {
            Some((&columns, leading)) => (leading.iter().product(), columns),
            None => (1, 1),
        }
    }

    /// Slices that a value takes whose rows are striped over so many: enough for the planes of a row, and for a plane of the
    /// rows.
    pub fn slice_count(dtype: DType, stripes: usize) -> usize {
        let planes = dtype.bits() / 8;
        if stripes == 1 { planes } else { planes.max(stripes) }
    }

    /// Vectors that it takes in each of its slices.
    pub fn depth(&self) -> usize {
        match self.stripes {
            1 => self.lot() * self.blocks().div_ceil(self.sets()),
            stripes => self.lot() / stripes * self.planes() * self.blocks(),
        }
    }

    /// Rows of a lot.
    fn lot(&self) -> usize {
        self.rows.div_ceil(self.lots.max(1)).next_multiple_of(self.stripes.max(1))
    }

    /// Sets of slices that blocks take turns in.
    pub fn sets(&self) -> usize {
        (self.slices.len() / (self.lots * self.planes()).max(1)).max(1)
    }

    /// Vectors of an element's bytes.
    pub fn planes(&self) -> usize {
        self.dtype.bits() / 8
    }

    /// Vectors of a row, for each plane.
    pub fn blocks(&self) -> usize {
        self.columns.div_ceil(self.lanes)
    }

    /// Whether every row is one number in all lanes.
    pub fn is_splat(&self) -> bool {
        self.columns == 1
    }

    /// Where a plane of a block of a row lies.
    pub fn place(&self, row: usize, block: usize, plane: usize) -> Place {
        let (planes, blocks, lot) = (self.planes(), self.blocks(), self.lot().max(1));
        let count = self.slices.len() / self.lots.max(1);
        let (first, row) = (row / lot * count, row % lot);
        let (index, offset) = if self.stripes == 1 {
            let sets = self.sets();
            (block % sets * planes + plane, row * blocks.div_ceil(sets) + block / sets)
        } else {
            let index = (row % self.stripes + plane * (count / planes)) % count;
            (index, ((row / self.stripes) * planes + plane) * blocks + block)
        };
        let Place { slice, address } = self.slices[first + index];
        Place { slice, address: address + offset as u16 }
    }

    /// All vectors of the value: place, row, block and plane, in the order of rows, blocks and planes.
    pub fn vectors(&self) -> impl Iterator<Item = (Place, usize, usize, usize)> + '_ {
        // Rows without columns have no vectors, however many there are.
        let rows = if self.columns == 0 { 0 } else { self.rows };
        (0..rows).flat_map(move |row| {
            (0..self.blocks()).flat_map(move |block| {
                (0..self.planes()).map(move |plane| (self.place(row, block, plane), row, block, plane))
            })
        })
    }

    /// Bytes of memory before everything else at a place.
    pub fn offset(place: Place, machine: &LpuMachine) -> usize {
        let depth = (machine.mem.banks * machine.mem.words) as usize;
        (usize::from(place.slice) * depth + usize::from(place.address)) * machine.vector()
    }

    /// Writes a dense row-major tensor's bytes, of the stored type, to where they lie in `memory`, the image of all slices.
    /// Lanes behind the last column become 0.
    pub fn scatter(&self, elements: &[u8], memory: &mut [u8], machine: &LpuMachine) {
        let planes = self.planes();
        for (place, row, block, plane) in self.vectors() {
            let at = Layout::offset(place, machine);
            let vector = &mut memory[at..at + self.lanes];
            let row = &elements[row * self.columns * planes..][..self.columns * planes];
            if self.is_splat() {
                vector.fill(row[plane]);
                continue;
            }
            vector.fill(0);
            for (lane, element) in vector.iter_mut().zip(row.chunks_exact(planes).skip(block * self.lanes)) {
                *lane = element[plane];
            }
        }
    }

    /// The dense row-major bytes of the value in `memory`, the image of all slices.
    pub fn gather(&self, memory: &[u8], machine: &LpuMachine) -> Vec<u8> {
        let planes = self.planes();
        let mut elements = vec![0; self.rows * self.columns * planes];
        for (place, row, block, plane) in self.vectors() {
            let at = Layout::offset(place, machine);
            let row = &mut elements[row * self.columns * planes..][..self.columns * planes];
            let lanes = row.chunks_exact_mut(planes).skip(block * self.lanes).zip(&memory[at..at + self.lanes]);
            lanes.for_each(|(element, &lane)| element[plane] = lane);
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lpu::machine::tests::small_machine;

    fn layout(dtype: DType, rows: usize, columns: usize, stripes: usize) -> Layout {
        spread(dtype, (rows, columns), stripes, (1, 1))
    }

    fn spread(dtype: DType, (rows, columns): (usize, usize), stripes: usize, (lots, sets): (usize, usize)) -> Layout {
        let count = lots * sets * Layout::slice_count(dtype, stripes);
        let slices = (0..count as u8).map(|slice| Place { slice, address: 3 + u16::from(slice) }).collect();
        Layout { dtype, rows, columns, lanes: 8, stripes, lots, slices }
    }

    #[test]
    fn what_is_scattered_is_gathered() {
        let machine = small_machine();
        for (dtype, rows, columns, stripes, pieces) in [
            (DType::F32, 5, 19, 1, (1, 1)),
            (DType::F32, 5, 19, 1, (1, 2)),
            (DType::F32, 5, 19, 1, (2, 1)),
            (DType::F16, 3, 24, 1, (1, 3)),
            (DType::F16, 5, 35, 1, (1, 4)),
            (DType::F16, 7, 24, 1, (2, 2)),
            (DType::F32, 5, 19, 4, (1, 1)),
            (DType::F32, 9, 19, 4, (2, 1)),
            (DType::F16, 9, 8, 4, (1, 1)),
            (DType::F16, 33, 8, 4, (2, 1)),
            (DType::I64, 6, 3, 4, (1, 1)),
            (DType::U8, 7, 1, 1, (1, 1)),
            (DType::U8, 7, 1, 1, (3, 1)),
            (DType::I32, 4, 1, 4, (1, 1)),
        ] {
            let layout = spread(dtype, (rows, columns), stripes, pieces);
            let elements: Vec<u8> = (0..rows * columns * layout.planes()).map(|i| (i * 7 + 1) as u8).collect();
            let mut memory = vec![0xee; machine.memory_bytes() as usize];
            layout.scatter(&elements, &mut memory, &machine);
            assert_eq!(layout.gather(&memory, &machine), elements, "{layout:?}");
            let depth = layout.depth();
            for (place, ..) in layout.vectors() {
                assert!((usize::from(place.address) - 3 - usize::from(place.slice)) < depth, "{layout:?}");
            }
            let places: BTreeSet<Place> = layout.vectors().map(|(place, ..)| place).collect();
            assert_eq!(places.len(), layout.vectors().count(), "{layout:?}");
        }
    }

    #[test]
    fn what_is_read_at_once_lies_in_different_slices() {
        for dtype in [DType::U8, DType::F16, DType::F32, DType::I64] {
            let striped = layout(dtype, 8, 8, 4);
            let slices = |places: Vec<Place>| places.iter().map(|place| place.slice).collect::<BTreeSet<_>>().len();
            for row in 0..8 {
                let planes = striped.planes();
                assert_eq!(slices((0..planes).map(|plane| striped.place(row, 0, plane)).collect()), planes);
            }
            for plane in 0..striped.planes() {
                assert_eq!(slices((4..8).map(|row| striped.place(row, 0, plane)).collect()), 4);
            }
            let places: BTreeSet<Place> = striped.vectors().map(|(place, ..)| place).collect();
            assert_eq!(places.len(), 8 * striped.planes());
        }
    }
}
