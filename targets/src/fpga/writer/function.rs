//! One function: a kernel whose buffers have homes, as C++ for high-level synthesis.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tcc_ir::DType;

use super::index::Indices;
use super::loaded::Taken;
use super::partition::{Partition, partitions};
use super::sameness::Sameness;
use super::stream::word_of;
use super::structure::{Node, Unsupported, structure};
use super::window::Window;
use crate::fpga::design::{Design, FifoId, Function, Home, MemoryId, Style};
use crate::fpga::nest::Nest;
use crate::fpga::widths::Range;
use crate::kernel::check::scalars;
use crate::kernel::writer::{Binding, Expressions, Helper, Language, Read, comment, read};
use crate::kernel::{BufferId, Expr, ExprId, Kernel, Scalar, Stmt, VarId};

/// The names of the block's numbers, as loops count them.
pub(super) const BLOCKS: [&str; 3] = ["block_x", "block_y", "block_z"];

/// What functions have in common.
#[derive(Default)]
pub(super) struct Common {
    /// Functions that are called, and so are written before.
    pub helpers: BTreeSet<Helper>,
    /// Numbers of channels that buffers are spread over whose beats are found when the function runs.
    pub ways: BTreeSet<u32>,
}

/// What is known of a function from its schedule.
pub(super) struct Known<'k> {
    /// The initiation interval of each pipelined loop, if it is known.
    pub interval: &'k dyn Fn(usize) -> Option<u32>,
    /// Its operations.
    pub nest: Option<&'k Nest>,
}

/// What was found out when a function was written, and is needed to write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Variables whose names occur where they are read.
    pub read: BTreeSet<VarId>,
    /// The runs of statements in which each variable that differs from lane to lane occurs; 0 for anywhere else.
    pub runs: BTreeMap<VarId, BTreeSet<usize>>,
}

/// A function that is being written.
pub(super) struct Writer<'k> {
    pub kernel: &'k Kernel,
    pub function: &'k Function,
    pub design: &'k Design,
    pub indices: &'k Indices<'k>,
    pub sameness: &'k Sameness<'k>,
    pub partitions: &'k [Partition],
    pub schedule: &'k Known<'k>,
    pub read: &'k Read,
    pub scalars: &'k [Scalar],
    pub common: &'k mut Common,
    /// What the last time gave.
    pub known: Found,
    pub found: Found,
    pub names: HashSet<String>,
    pub fixed: Fixed,
    pub out: String,
    pub depth: usize,
    /// Pipelined loops so far.
    pub loops: usize,
    /// Runs so far.
    pub runs: usize,
    /// The run that is being written, if one is.
    pub run: Option<usize>,
    /// The statement that is being written.
    pub place: usize,
    /// What holds for the lanes that take part.
    pub masks: Vec<String>,
    /// Expressions that have a name in this run.
    pub once: HashMap<ExprId, String>,
    /// Beats that are there in this run.
    pub windows: Vec<Window>,
    /// Variables of loops that lanes go through for themselves.
    pub inner: HashSet<VarId>,
    /// Buffers in FIFOs whose words are touched in one place so far, each once.
    pub streamed: BTreeSet<BufferId>,
    /// Buffers in FIFOs that are touched otherwise, which cannot be.
    pub unstreamed: BTreeSet<BufferId>,
}

/// Names that a function has from its first line to its last.
#[derive(Clone, Debug, Default)]
pub(super) struct Fixed {
    pub lanes: String,
    pub lane: String,
    /// Of each buffer, where it begins.
    pub first: Vec<String>,
    pub memories: BTreeMap<MemoryId, String>,
    pub channels: BTreeMap<u32, String>,
    /// Of what comes through the loader, what an iteration takes.
    pub taken: BTreeMap<BufferId, Taken>,
    /// Variables that say how many blocks there are along each axis, if calls do.
    pub blocks: Option<[String; 3]>,
    pub fifos: BTreeMap<FifoId, String>,
    /// Of each variable, what all lanes have combined.
    pub all: Vec<String>,
    /// Of each index of a loop, what it is for the first lane.
    pub bases: Vec<String>,
}

/// A function's text and how it is called.
pub(super) struct Written {
    /// What stands in the header.
    pub declaration: String,
    /// What stands before its body.
    pub definition: String,
    /// The body.
    pub body: String,
}

/// Channels that a function uses, and whether it writes them.
pub(super) fn channels(function: &Function) -> BTreeMap<u32, bool> {
    let mut channels = BTreeMap::new();
    for (buffer, home) in function.kernel.buffers.iter().zip(&function.homes) {
        if let Home::External { first, ways } = *home {
            for channel in first..first + ways {
                *channels.entry(channel).or_insert(false) |= buffer.is_written;
            }
        }
    }
    channels
}

/// Memories that a function uses, and whether it writes them.
pub(super) fn memories(function: &Function) -> BTreeMap<MemoryId, bool> {
    let mut memories = BTreeMap::new();
    for (buffer, home) in function.kernel.buffers.iter().zip(&function.homes) {
        if let Home::OnChip(memory) = *home {
            *memories.entry(memory).or_insert(false) |= buffer.is_written;
        }
    }
    memories
}

/// Whether a function can be written.
///
/// # Errors
/// What cannot be.
pub(in crate::fpga) fn check(function: &Function) -> Result<(), Unsupported> {
    let kernel = &function.kernel;
    let indices = Indices::new(kernel);
    let sameness = Sameness::new(kernel, &indices);
    structure(kernel, &indices, &sameness).map(|_| ())
}

/// Writes a function, with what is known of its schedule.
pub(super) fn write(
    design: &Design,
    function: &Function,
    independent: &[MemoryId],
    schedule: &Known<'_>,
    common: &mut Common,
) -> Result<Written, Unsupported> {
    let (written, unstreamed) = with_fifos(design, function, independent, schedule, common)?;
    if unstreamed.is_empty() {
        return Ok(written);
    }
    let what = "it does not touch each word of a FIFO once, in one place";
    Err(Unsupported { kernel: function.kernel.name.clone(), what })
}

/// The same with the buffers in FIFOs that do not work so.
pub(super) fn with_fifos(
    design: &Design,
    function: &Function,
    independent: &[MemoryId],
    schedule: &Known<'_>,
    common: &mut Common,
) -> Result<(Written, BTreeSet<BufferId>), Unsupported> {
    let kernel = &function.kernel;
    let indices = Indices::new(kernel);
    let sameness = Sameness::new(kernel, &indices);
    let nodes = structure(kernel, &indices, &sameness)?;
    let partitions = partitions(kernel, &indices, &sameness);
    let (read, scalars) = (read(kernel), scalars(kernel));
    // All variables occur anywhere, until it is known where they do.
    let everywhere = (0..kernel.vars.len() as u32).map(VarId);
    let mut known =
        Found { read: everywhere.clone().collect(), runs: everywhere.map(|var| (var, BTreeSet::from([0]))).collect() };
    loop {
        let mut writer = Writer {
            kernel,
            function,
            design,
            indices: &indices,
            sameness: &sameness,
            partitions: &partitions,
            schedule,
            read: &read,
            scalars: &scalars,
            common: &mut *common,
            known,
            found: Found::default(),
            names: HashSet::new(),
            fixed: Fixed::default(),
            out: String::new(),
            depth: 1,
            loops: 0,
            runs: 0,
            run: None,
            place: 0,
            masks: Vec::new(),
            once: HashMap::new(),
            windows: Vec::new(),
            inner: HashSet::new(),
            streamed: BTreeSet::new(),
            unstreamed: BTreeSet::new(),
        };
        let parameters = writer.parameters();
        writer.whole(&nodes, independent);
        let is_stable = writer.found == writer.known;
        let Writer { found, out, streamed, mut unstreamed, .. } = writer;
        if is_stable {
            let signature = |named: bool| {
                let each = parameters.iter().map(|(ty, name, extents)| match !named || occurs(&out, name) {
                    true => format!("{ty}{name}{extents}"),
                    // Nobody reads what it says.
                    false => format!("{}{extents} /* {name} */", ty.trim_end()),
                });
                format!("void {}(\n    {})", kernel.name, each.collect::<Vec<_>>().join(",\n    "))
            };
            let is_fifo = |id: &BufferId| matches!(function.homes[id.index()], Home::Fifo(_));
            let fifos = (0..kernel.buffers.len() as u32).map(BufferId).filter(is_fifo);
            unstreamed.extend(fifos.filter(|id| !streamed.contains(id)));
            let written = Written { declaration: signature(false), definition: signature(true), body: out };
            return Ok((written, unstreamed));
        }
        // What is no longer written reads no more, so that this comes to an end.
        known = found;
    }
}

impl<'k> Writer<'k> {
    /// Writes a line.
    pub fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Writes a directive for the tool.
    pub fn pragma(&mut self, text: &str) {
        self.out.push_str("#pragma HLS ");
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A name that nothing else has in this function.
    pub fn unique(&mut self, wanted: &str) -> String {
        let (mut name, mut again) = (wanted.to_owned(), 1);
        while !self.names.insert(name.clone()) {
            again += 1;
            name = format!("{wanted}_{again}");
        }
        name
    }

    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// Whether statements are written that not all lanes do.
    pub fn is_masked(&self) -> bool {
        !self.masks.is_empty()
    }

    /// The parameters: what stands before each name, the name, and what stands behind it.
    pub fn parameters(&mut self) -> Vec<(String, String, String)> {
        let kernel = self.kernel;
        let buffers = kernel.buffers.iter().map(|buffer| &buffer.name);
        let own = buffers
            .chain(kernel.shared.iter().map(|shared| &shared.name))
            .chain(kernel.vars.iter().map(|var| &var.name));
        self.names = own.cloned().collect();
        self.names.extend(BLOCKS.map(str::to_owned));
        let mut parameters = Vec::new();
        for (id, _) in memories(self.function) {
            let memory = &self.design.memories[id.index()];
            let name = self.unique(&memory.name);
            let (ty, upper) = (Language::Hls.stored(memory.dtype), memory.name.to_ascii_uppercase());
            parameters.push((format!("{ty} "), name.clone(), format!("[{upper}_WORDS][{upper}_BANKS]")));
            self.fixed.memories.insert(id, name);
        }
        for (channel, is_written) in channels(self.function) {
            let name = self.unique(&format!("channel_{channel}"));
            let constant = if is_written { "" } else { "const " };
            parameters.push((format!("{constant}Beat *"), name.clone(), String::new()));
            self.fixed.channels.insert(channel, name);
        }
        for home in &self.function.homes {
            let Home::Fifo(id) = *home else { continue };
            let fifo = &self.design.fifos[id.index()];
            let name = self.unique(&fifo.name);
            parameters.push((format!("hls::stream<{}> &", word_of(fifo)), name.clone(), String::new()));
            self.fixed.fifos.insert(id, name);
        }
        for (buffer, home) in kernel.buffers.iter().zip(&self.function.homes) {
            if self.design.style == Style::Streaming {
                // What a stage has it has from the first word on.
                self.fixed.first.push("0".to_owned());
                continue;
            }
            let name = self.unique(&format!("{}_first", buffer.name));
            match home {
                Home::Loaded { .. } => {
                    let channels = self.loader_channels();
                    let (ty, name) = ("hls::stream<Beat> (&".to_owned(), buffer.name.clone());
                    parameters.push((ty, name, format!(")[{channels}]")));
                }
                Home::OnChip(_) | Home::External { .. } | Home::Fifo(_) => {
                    parameters.push(("int ".to_owned(), name.clone(), String::new()));
                }
            }
            self.fixed.first.push(name);
        }
        if self.function.is_elastic() {
            let names = ["blocks_x", "blocks_y", "blocks_z"].map(|name| self.unique(name));
            parameters.extend(names.iter().map(|name| ("int ".to_owned(), name.clone(), String::new())));
            self.fixed.blocks = Some(names);
        }
        self.fixed.lanes = self.unique("LANES");
        self.fixed.lane = self.unique("lane");
        for var in &kernel.vars {
            let name = self.unique(&format!("{}_all", var.name));
            self.fixed.all.push(name);
            let name = self.unique(&format!("{}_base", var.name));
            self.fixed.bases.push(name);
        }
        parameters
    }

    /// The body.
    pub fn whole(&mut self, nodes: &[Node], independent: &[MemoryId]) {
        let kernel = self.kernel;
        if kernel.threads > 1 {
            self.line(&format!("constexpr int {} = {};", self.fixed.lanes, kernel.threads));
        }
        for memory in independent {
            let name = self.fixed.memories[memory].clone();
            self.pragma(&format!("DEPENDENCE variable={name} type=inter direction=RAW dependent=false"));
        }
        for (shared, partition) in kernel.shared.iter().zip(self.partitions) {
            if !self.uses(&shared.name) {
                continue;
            }
            let (ty, name) = (Language::Hls.stored(shared.dtype), &shared.name);
            let (words, banks) = (partition.words(shared.elements), partition.banks(shared.elements));
            let (extents, dim) = match partition {
                Partition::Cyclic(_) => (format!("[{words}][{banks}]"), 2),
                Partition::Block(_) => (format!("[{banks}][{words}]"), 1),
            };
            self.line(&format!("{ty} {name}{extents};"));
            if banks > 1 {
                self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim={dim}"));
            }
            if words > 1 {
                self.pragma(&format!("BIND_STORAGE variable={name} type=ram_2p"));
            }
        }
        let has_loops = kernel.body.iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. }));
        self.open_loaded();
        if let (Some(blocks), false) = (self.fixed.blocks.clone(), has_loops) {
            return self.elastic(nodes, &blocks);
        }
        let axes: Vec<usize> = (0..3).rev().filter(|&axis| kernel.grid[axis] > 1).collect();
        for &axis in &axes {
            let (name, blocks) = (BLOCKS[axis], self.blocks_along(axis));
            let label = self.unique(["over_blocks_x", "over_blocks_y", "over_blocks_z"][axis]);
            self.line(&format!("{label}: for (int {name} = 0; {name} < {blocks}; ++{name}) {{"));
            self.depth += 1;
            if !has_loops && Some(&axis) == axes.last() {
                self.pipeline();
                self.take(0..kernel.body.len());
            }
        }
        self.nodes(nodes);
        for _ in axes {
            self.depth -= 1;
            self.line("}");
        }
    }

    fn blocks_along(&self, axis: usize) -> String {
        self.fixed.blocks.as_ref().map_or_else(|| self.kernel.grid[axis].to_string(), |blocks| blocks[axis].clone())
    }

    /// The loop over all blocks where calls say how many there are: one, which a tool pipelines whatever that is.
    fn elastic(&mut self, nodes: &[Node], blocks: &[String; 3]) {
        let kernel = self.kernel;
        let [x, y, z] = blocks;
        // What lies beside each other is written again after so many blocks as there are along the first axis, at least.
        let (least, most) = (self.function.least, kernel.grid);
        let used = kernel.shared.iter().map(|shared| shared.name.as_str()).filter(|name| self.uses(name));
        for shared in used.collect::<Vec<_>>() {
            self.pragma(&format!(
                "DEPENDENCE variable={shared} type=inter direction=RAW distance={} dependent=true",
                least[0]
            ));
        }
        let (number, count) = (self.unique("block"), self.unique("blocks"));
        let axes: Vec<usize> = (0..3).filter(|&axis| kernel.grid[axis] > 1).collect();
        let declared: Vec<String> = axes.iter().map(|&axis| format!("{} = 0", BLOCKS[axis])).collect();
        self.line(&format!("int {};", declared.join(", ")));
        self.line(&format!("const int {count} = {x} * {y} * {z};"));
        let label = self.unique("over_blocks");
        self.line(&format!("{label}: for (int {number} = 0; {number} < {count}; ++{number}) {{"));
        self.depth += 1;
        self.pipeline();
        let trips = [least, most].map(|grid| grid.iter().map(|&blocks| u64::from(blocks)).product::<u64>());
        self.pragma(&format!("LOOP_TRIPCOUNT min={} max={}", trips[0], trips[1]));
        self.take(0..kernel.body.len());
        self.nodes(nodes);
        // The first axis is the fastest.
        for (place, &axis) in axes.iter().enumerate() {
            let own = BLOCKS[axis];
            if place + 1 == axes.len() {
                self.line(&format!("++{own};"));
            } else {
                self.line(&format!("if (++{own} == {}) {{", blocks[axis]));
                self.depth += 1;
                self.line(&format!("{own} = 0;"));
            }
        }
        for _ in &axes {
            self.depth -= 1;
            self.line("}");
        }
    }

    /// Whether a local array occurs in the function.
    pub fn uses(&self, name: &str) -> bool {
        let id = self.kernel.shared.iter().position(|shared| shared.name == name);
        id.is_some_and(|id| {
            let id = crate::kernel::SharedId(id as u32);
            let reads = |expr: &Expr| matches!(*expr, Expr::LoadShared(own, _) if own == id);
            let writes = |stmt: &Stmt| matches!(*stmt, Stmt::StoreShared(own, ..) if own == id);
            self.kernel.exprs.iter().any(reads) || self.kernel.body.iter().any(writes)
        })
    }

    pub fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.node(node);
        }
    }

    pub fn node(&mut self, node: &Node) {
        match node {
            Node::Once(place) => self.once(*place),
            Node::Lanes(places) => self.lanes(places),
            Node::Loop(place, body) => self.repeat(*place, body),
            Node::Branch(place, then, otherwise) => self.branch(*place, then, otherwise),
            Node::Masked(place, then, otherwise) => self.masked(*place, then, otherwise),
            Node::Apart(place, body) => self.apart(*place, body),
            Node::Reduce(place) => self.reduce(*place),
        }
    }

    /// Whether a statement leaves nothing that anybody reads.
    pub fn is_idle(&self, place: usize) -> bool {
        match self.kernel.body[place] {
            Stmt::Let(var, _) => !self.read.vars.contains(&var) || !self.known.read.contains(&var),
            Stmt::Set(var, _) | Stmt::SetElement(var, ..) | Stmt::LoadVector { array: var, .. } => {
                !self.read.vars.contains(&var) || !self.known.read.contains(&var)
            }
            _ => false,
        }
    }

    /// A statement that is the same for all lanes.
    pub fn once(&mut self, place: usize) {
        if self.is_idle(place) {
            return;
        }
        self.place = place;
        self.open_windows(&[place], false);
        self.statement(place);
        self.close_windows();
    }

    /// A run of statements that each lane does.
    pub fn lanes(&mut self, places: &[usize]) {
        let places: Vec<usize> = places.iter().copied().filter(|&place| !self.is_idle(place)).collect();
        if places.is_empty() {
            return;
        }
        self.runs += 1;
        let run = self.runs;
        self.declare(&places, run);
        self.name_once(&places);
        self.open_windows(&places, true);
        self.run = Some(run);
        let is_loop = self.kernel.threads > 1;
        if is_loop {
            self.open_lanes();
        }
        if let Some(mask) = self.masks.last().cloned() {
            self.line(&format!("if ({mask}) {{"));
            self.depth += 1;
        }
        for place in places {
            self.place = place;
            self.scope(place);
        }
        if self.is_masked() {
            self.depth -= 1;
            self.line("}");
        }
        if is_loop {
            self.depth -= 1;
            self.line("}");
        }
        self.run = None;
        self.close_windows();
        self.once.clear();
    }

    /// The place after a statement with all in its scope.
    pub fn after(&self, place: usize) -> usize {
        let mut depth = 0usize;
        for (at, stmt) in self.kernel.body.iter().enumerate().skip(place) {
            match stmt {
                Stmt::For { .. } | Stmt::If(_) => depth += 1,
                Stmt::End => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.kernel.body.len()
    }
}

impl<'k> Expressions<'k> for Writer<'k> {
    fn kernel(&self) -> &'k Kernel {
        self.kernel
    }

    fn language(&self) -> Language {
        Language::Hls
    }

    fn holds(&self, id: ExprId) -> Scalar {
        self.scalars[id.index()]
    }

    fn helper(&mut self, helper: Helper) -> &'static str {
        self.common.helper(helper)
    }

    fn stays(&self, id: ExprId, dtype: DType) -> bool {
        let known = self.schedule.nest.and_then(|nest| nest.exprs.get(id.index()).copied().flatten());
        // What wraps may be anything.
        known.is_some_and(|range| range != Range::of_dtype(dtype))
    }

    fn own(&mut self, id: ExprId) -> Option<(String, Binding)> {
        if let Some(name) = self.once.get(&id) {
            return Some((name.clone(), Binding::Whole));
        }
        let kernel = self.kernel;
        Some(match kernel.exprs[id.index()] {
            Expr::Thread if kernel.threads == 1 => ("0".to_owned(), Binding::Whole),
            Expr::Thread => (self.fixed.lane.clone(), Binding::Whole),
            Expr::BlockNumber => {
                let linear = self.indices.linear(id);
                self.linear(&linear)
            }
            Expr::Block(axis) => (self.block(usize::from(axis)), Binding::Whole),
            Expr::Var(var) if self.indices.stride(var).is_some() => {
                let linear = self.indices.linear(id);
                self.linear(&linear)
            }
            Expr::Var(var) => {
                let text = self.variable(var, None);
                self.as_register(var, text)
            }
            Expr::Element(var, index) => {
                let index = self.expr(index, Binding::Ternary);
                let text = self.variable(var, Some(&index));
                self.as_register(var, text)
            }
            Expr::Load(buffer, index) => {
                let linear = self.indices.linear(index);
                self.element(buffer, &linear, Some(index))
            }
            Expr::LoadShared(shared, index) => {
                let linear = self.indices.linear(index);
                let stored = self.local(shared, &linear, Some(index));
                self.widened(kernel.shared[shared.index()].dtype, stored)
            }
            Expr::Integer(_)
            | Expr::Number(..)
            | Expr::Index(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::MulAdd(..)
            | Expr::Select(_)
            | Expr::Convert(..) => return None,
        })
    }
}

impl Common {
    /// The name of a helper, which is then written.
    pub fn helper(&mut self, helper: Helper) -> &'static str {
        self.helpers.extend(helper.needs(Language::Hls).iter().chain([&helper]));
        helper.name()
    }
}

/// Whether a name occurs in a text.
pub(super) fn occurs(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).any(|word| word == name)
}

/// What a function does, in lines for people.
pub(super) fn about(function: &Function) -> String {
    function.kernel.about.iter().map(|line| format!("// {}\n", comment(line))).collect()
}
