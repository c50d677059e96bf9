//! One function: a kernel whose buffers have homes, as C++ for high-level synthesis.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::index::{Atom, Indices, Linear, Part};
use super::partition::{Partition, partitions};
use super::sameness::Sameness;
use super::structure::{Node, Unsupported, structure};
use super::window::Window;
use crate::fpga::design::{Design, Function, Home, MemoryId};
use crate::kernel::check::scalars;
use crate::kernel::writer::{Binding, Expressions, Helper, Language, Read, comment, read};
use crate::kernel::{Expr, ExprId, Kernel, Scalar, Stmt, VarId};

/// The names of the block's numbers, as loops count them.
const BLOCKS: [&str; 3] = ["block_x", "block_y", "block_z"];

/// What functions have in common.
#[derive(Default)]
pub(super) struct Common {
    /// Functions that are called, and so are written before.
    pub helpers: BTreeSet<Helper>,
    /// Numbers of channels that buffers are spread over whose beats are found when the function runs.
    pub ways: BTreeSet<u32>,
}

/// What was found out when a function was written, and is needed to write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Variables whose names occur where they are read.
    read: BTreeSet<VarId>,
    /// The runs of statements in which each variable that differs from lane to lane occurs; 0 for anywhere else.
    runs: BTreeMap<VarId, BTreeSet<usize>>,
}

/// A function that is being written.
pub(super) struct Writer<'k> {
    pub kernel: &'k Kernel,
    pub function: &'k Function,
    pub design: &'k Design,
    pub indices: &'k Indices<'k>,
    pub sameness: &'k Sameness<'k>,
    pub partitions: &'k [Partition],
    interval: &'k dyn Fn(usize) -> Option<u32>,
    read: &'k Read,
    scalars: &'k [Scalar],
    pub common: &'k mut Common,
    /// What the last time gave.
    known: Found,
    found: Found,
    names: HashSet<String>,
    fixed: Fixed,
    out: String,
    pub depth: usize,
    /// Pipelined loops so far.
    loops: usize,
    /// Runs so far.
    runs: usize,
    /// The run that is being written, if one is.
    run: Option<usize>,
    /// The statement that is being written.
    pub place: usize,
    /// What holds for the lanes that take part.
    masks: Vec<String>,
    /// Expressions that have a name in this run.
    pub once: HashMap<ExprId, String>,
    /// Beats that are there in this run.
    pub windows: Vec<Window>,
    /// Variables of loops that lanes go through for themselves.
    pub inner: HashSet<VarId>,
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
    /// Of each variable, what all lanes have combined.
    all: Vec<String>,
    /// Of each index of a loop, what it is for the first lane.
    bases: Vec<String>,
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

/// Writes a function. `interval` gives the initiation interval of each pipelined loop, if it is known.
pub(super) fn write(
    design: &Design,
    function: &Function,
    independent: &[MemoryId],
    interval: &dyn Fn(usize) -> Option<u32>,
    common: &mut Common,
) -> Result<Written, Unsupported> {
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
            interval,
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
        };
        let parameters = writer.parameters();
        writer.whole(&nodes, independent);
        let is_stable = writer.found == writer.known;
        let Writer { found, out, .. } = writer;
        if is_stable {
            let signature = |named: bool| {
                let each = parameters.iter().map(|(ty, name, extents)| match !named || occurs(&out, name) {
                    true => format!("{ty}{name}{extents}"),
                    // Nobody reads what it says.
                    false => format!("{}{extents} /* {name} */", ty.trim_end()),
                });
                format!("void {}(\n    {})", kernel.name, each.collect::<Vec<_>>().join(",\n    "))
            };
            return Ok(Written { declaration: signature(false), definition: signature(true), body: out });
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
    fn parameters(&mut self) -> Vec<(String, String, String)> {
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
        for buffer in &kernel.buffers {
            let name = self.unique(&format!("{}_first", buffer.name));
            parameters.push(("int ".to_owned(), name.clone(), String::new()));
            self.fixed.first.push(name);
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
    fn whole(&mut self, nodes: &[Node], independent: &[MemoryId]) {
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
        let axes: Vec<usize> = (0..3).rev().filter(|&axis| kernel.grid[axis] > 1).collect();
        for &axis in &axes {
            let (name, blocks) = (BLOCKS[axis], kernel.grid[axis]);
            let label = self.unique(["blocks_x", "blocks_y", "blocks_z"][axis]);
            self.line(&format!("{label}: for (int {name} = 0; {name} < {blocks}; ++{name}) {{"));
            self.depth += 1;
            if !has_loops && Some(&axis) == axes.last() {
                self.pipeline();
            }
        }
        self.nodes(nodes);
        for _ in axes {
            self.depth -= 1;
            self.line("}");
        }
    }

    /// Whether a local array occurs in the function.
    fn uses(&self, name: &str) -> bool {
        let id = self.kernel.shared.iter().position(|shared| shared.name == name);
        id.is_some_and(|id| {
            let id = crate::kernel::SharedId(id as u32);
            let reads = |expr: &Expr| matches!(*expr, Expr::LoadShared(own, _) if own == id);
            let writes = |stmt: &Stmt| matches!(*stmt, Stmt::StoreShared(own, ..) if own == id);
            self.kernel.exprs.iter().any(reads) || self.kernel.body.iter().any(writes)
        })
    }

    /// Has the loop that was opened pipelined.
    fn pipeline(&mut self) {
        let interval = (self.interval)(self.loops);
        self.loops += 1;
        let interval = interval.map(|interval| format!(" II={interval}")).unwrap_or_default();
        self.pragma(&format!("PIPELINE{interval}"));
    }

    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.node(node);
        }
    }

    fn node(&mut self, node: &Node) {
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
    fn is_idle(&self, place: usize) -> bool {
        match self.kernel.body[place] {
            Stmt::Let(var, _) => !self.read.vars.contains(&var) || !self.known.read.contains(&var),
            Stmt::Set(var, _) | Stmt::SetElement(var, ..) | Stmt::LoadVector { array: var, .. } => {
                !self.read.vars.contains(&var) || !self.known.read.contains(&var)
            }
            _ => false,
        }
    }

    /// A statement that is the same for all lanes.
    fn once(&mut self, place: usize) {
        if self.is_idle(place) {
            return;
        }
        self.place = place;
        self.open_windows(&[place], false);
        self.statement(place);
        self.close_windows();
    }

    /// A run of statements that each lane does.
    fn lanes(&mut self, places: &[usize]) {
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

    /// Opens the loop over lanes.
    pub fn open_lanes(&mut self) {
        let Fixed { lane, lanes, .. } = &self.fixed;
        let text = format!("for (int {lane} = 0; {lane} < {lanes}; ++{lane}) {{");
        self.line(&text);
        self.depth += 1;
        self.pragma("UNROLL");
    }

    /// Declares what lanes keep from this run to others.
    fn declare(&mut self, places: &[usize], run: usize) {
        let kernel = self.kernel;
        for &place in places {
            for at in place..self.after(place) {
                let Stmt::Let(var, _) = kernel.body[at] else { continue };
                if self.is_idle(at) || !self.is_array(var, run) {
                    continue;
                }
                let of = &kernel.vars[var.index()];
                let (ty, name, lanes) = (Language::Hls.scalar(of.scalar), &of.name, &self.fixed.lanes);
                let extent = of.array.map(|elements| format!("[{elements}]")).unwrap_or_default();
                self.line(&format!("{ty} {name}{extent}[{lanes}];"));
                self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
            }
        }
    }

    /// Whether a variable that differs from lane to lane has an element for each, since others than a run know of it.
    fn is_array(&self, var: VarId, run: usize) -> bool {
        self.kernel.threads > 1 && self.known.runs.get(&var).is_some_and(|runs| runs.iter().any(|&own| own != run))
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

    /// A statement that a lane does, with all in its scope.
    fn scope(&mut self, place: usize) {
        let mut at = place;
        let end = self.after(place);
        while at < end {
            self.place = at;
            match self.kernel.body[at] {
                Stmt::If(condition) => {
                    let condition = self.expr(condition, Binding::Ternary);
                    self.line(&format!("if ({condition}) {{"));
                    self.depth += 1;
                }
                Stmt::Else => {
                    self.depth -= 1;
                    self.line("} else {");
                    self.depth += 1;
                }
                Stmt::For { .. } => {
                    self.open_loop(at);
                }
                Stmt::End => {
                    self.depth -= 1;
                    self.line("}");
                }
                _ if self.is_idle(at) => {}
                _ => self.statement(at),
            }
            at += 1;
        }
    }

    /// Opens a loop, and says whether it is written out.
    fn open_loop(&mut self, place: usize) {
        let kernel = self.kernel;
        let Stmt::For { var, from, to, step, unroll } = kernel.body[place] else { return };
        let name = &kernel.vars[var.index()].name;
        let (from, to) = (self.expr(from, Binding::Ternary), self.expr(to, Binding::Sum));
        let step = if step == 1 { format!("++{name}") } else { format!("{name} += {step}") };
        let label =
            if unroll || self.run.is_some() { String::new() } else { self.unique(&format!("over_{name}")) + ": " };
        self.line(&format!("{label}for (int {name} = {from}; {name} < {to}; {step}) {{"));
        self.depth += 1;
        if unroll {
            self.pragma("UNROLL");
        } else if self.run.is_none() {
            let inside = &kernel.body[place + 1..self.after(place)];
            if !inside.iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. })) {
                self.pipeline();
            }
        }
    }

    fn repeat(&mut self, place: usize, body: &[Node]) {
        self.place = place;
        self.open_loop(place);
        self.nodes(body);
        self.depth -= 1;
        self.line("}");
    }

    /// A loop that lanes begin or end apart from each other. They go through it in step; those that have come to their end wait.
    fn apart(&mut self, place: usize, body: &[Node]) {
        self.place = place;
        let kernel = self.kernel;
        let Stmt::For { var, from, to, step, .. } = kernel.body[place] else { return };
        let name = &kernel.vars[var.index()].name;
        let label = self.unique(&format!("over_{name}"));
        let inside = &kernel.body[place + 1..self.after(place)];
        let is_innermost = !inside.iter().any(|stmt| matches!(stmt, Stmt::For { unroll: false, .. }));
        let outside = self.masks.last().cloned();
        let stride = self.indices.stride(var);
        let is_even = stride.is_some_and(|stride| stride.is_even);
        let takes_part = if is_even { String::new() } else { self.unique("takes_part") };
        let Fixed { lane, lanes, .. } = self.fixed.clone();
        if let Some(stride) = stride {
            let (base, (from, _)) = (self.fixed.bases[var.index()].clone(), self.linear(&stride.base));
            let to = self.expr(to, Binding::Sum);
            let step = if step == 1 { format!("++{base}") } else { format!("{base} += {step}") };
            self.line(&format!("{label}: for (int {base} = {from}; {base} < {to}; {step}) {{"));
            self.depth += 1;
        } else {
            self.line(&format!("int {name}[{lanes}];"));
            self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
            self.in_own_run(|writer| {
                let (target, from) = (writer.target(var, None), writer.expr(from, Binding::Ternary));
                let guard = outside.as_ref().map(|mask| format!("if ({mask}) ")).unwrap_or_default();
                writer.line(&format!("{guard}{target} = {from};"));
            });
            self.line(&format!("{label}: for (;;) {{"));
            self.depth += 1;
        }
        if is_innermost {
            self.pipeline();
        }
        if !is_even {
            self.line(&format!("bool {takes_part}[{lanes}];"));
            self.pragma(&format!("ARRAY_PARTITION variable={takes_part} type=complete dim=0"));
            if stride.is_none() {
                self.line("bool goes_on = false;");
            }
            self.in_own_run(|writer| {
                let index = match stride {
                    Some(stride) => {
                        let terms = vec![(Atom::Base(var), 1), (Atom::Lane, stride.times)];
                        writer.linear(&Linear { terms, constant: 0 }).0
                    }
                    None => writer.target(var, None),
                };
                let to = writer.expr(to, Binding::Sum);
                let outside = outside.as_ref().map(|mask| format!("{mask} && ")).unwrap_or_default();
                writer.line(&format!("{takes_part}[{lane}] = {outside}{index} < {to};"));
                if stride.is_none() {
                    writer.line(&format!("goes_on |= {takes_part}[{lane}];"));
                }
            });
            if stride.is_none() {
                self.line("if (!goes_on) break;");
            }
            self.masks.push(format!("{takes_part}[{lane}]"));
        }
        self.nodes(body);
        if !is_even {
            self.masks.pop();
        }
        if stride.is_none() {
            self.in_own_run(|writer| {
                let target = writer.target(var, None);
                writer.line(&format!("if ({takes_part}[{lane}]) {target} += {step};"));
            });
        }
        self.depth -= 1;
        self.line("}");
    }

    /// Writes what each lane does in a loop of its own over lanes.
    fn in_own_run(&mut self, write: impl FnOnce(&mut Self)) {
        self.runs += 1;
        self.run = Some(self.runs);
        self.open_lanes();
        write(self);
        self.depth -= 1;
        self.line("}");
        self.run = None;
    }

    fn branch(&mut self, place: usize, then: &[Node], otherwise: &[Node]) {
        self.place = place;
        let Stmt::If(condition) = self.kernel.body[place] else { return };
        let condition = self.expr(condition, Binding::Ternary);
        self.line(&format!("if ({condition}) {{"));
        self.depth += 1;
        self.nodes(then);
        if !otherwise.is_empty() {
            self.depth -= 1;
            self.line("} else {");
            self.depth += 1;
            self.nodes(otherwise);
        }
        self.depth -= 1;
        self.line("}");
    }

    /// A branch that not all lanes take: they keep which of them do.
    fn masked(&mut self, place: usize, then: &[Node], otherwise: &[Node]) {
        self.place = place;
        let Stmt::If(condition) = self.kernel.body[place] else { return };
        let name = self.unique("takes_part");
        let Fixed { lane, lanes, .. } = self.fixed.clone();
        self.line(&format!("bool {name}[{lanes}];"));
        self.pragma(&format!("ARRAY_PARTITION variable={name} type=complete dim=0"));
        let outside = self.masks.last().cloned();
        self.in_own_run(|writer| {
            let wanted = if outside.is_some() { Binding::Compare } else { Binding::Ternary };
            let condition = writer.expr(condition, wanted);
            let outside = outside.as_ref().map(|mask| format!("{mask} && ")).unwrap_or_default();
            writer.line(&format!("{name}[{lane}] = {outside}{condition};"));
        });
        self.masks.push(format!("{name}[{lane}]"));
        self.nodes(then);
        self.masks.pop();
        if !otherwise.is_empty() {
            let not = format!("!{name}[{lane}]");
            self.masks.push(outside.map_or(not.clone(), |mask| format!("{mask} && {not}")));
            self.nodes(otherwise);
            self.masks.pop();
        }
    }

    /// A statement that opens no scope.
    fn statement(&mut self, place: usize) {
        let kernel = self.kernel;
        match kernel.body[place] {
            Stmt::Let(var, value) => {
                let of = &kernel.vars[var.index()];
                let (ty, value) = (Language::Hls.scalar(of.scalar), self.expr(value, Binding::Ternary));
                let is_array = self.run.is_some_and(|run| self.sameness.differs(var) && self.is_array(var, run));
                match of.array {
                    None if is_array => {
                        let target = self.target(var, None);
                        self.line(&format!("{target} = {value};"));
                    }
                    None => {
                        let constant = if self.is_set(var) { "" } else { "const " };
                        self.note(var);
                        self.line(&format!("{constant}{ty} {} = {value};", of.name));
                    }
                    Some(elements) => {
                        if !is_array {
                            self.line(&format!("{ty} {}[{elements}];", of.name));
                            self.pragma(&format!("ARRAY_PARTITION variable={} type=complete", of.name));
                        }
                        let target = self.target(var, Some("slot"));
                        self.line(&format!("for (int slot = 0; slot < {elements}; ++slot) {{"));
                        self.pragma("UNROLL");
                        self.line(&format!("    {target} = {value};"));
                        self.line("}");
                    }
                }
            }
            Stmt::Set(var, value) => {
                let value = self.expr(value, Binding::Ternary);
                let target = self.target(var, None);
                self.line(&format!("{target} = {value};"));
            }
            Stmt::SetElement(var, index, value) => {
                let (index, value) = (self.expr(index, Binding::Ternary), self.expr(value, Binding::Ternary));
                let target = self.target(var, Some(&index));
                self.line(&format!("{target} = {value};"));
            }
            Stmt::Store(buffer, index, value) => {
                let (linear, value) = (self.indices.linear(index), self.expr(value, Binding::Ternary));
                self.store(buffer, &linear, Some(index), &value);
            }
            Stmt::StoreShared(shared, index, value) => {
                let (linear, value) = (self.indices.linear(index), self.expr(value, Binding::Ternary));
                let target = self.local(shared, &linear, Some(index));
                let value = self.narrow(kernel.shared[shared.index()].dtype, &value);
                self.line(&format!("{target} = {value};"));
            }
            Stmt::LoadVector { array, to, buffer, from, count } => {
                let to = self.slot_after(to);
                let mut linear = self.indices.linear(from);
                if linear.add(Atom::Slot(count), 1).is_none() {
                    linear = Linear { terms: vec![(Atom::Other(from), 1), (Atom::Slot(count), 1)], constant: 0 };
                }
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                self.pragma("UNROLL");
                self.depth += 1;
                let (value, _) = self.element(buffer, &linear, None);
                let target = self.target(array, Some(&to));
                self.line(&format!("{target} = {value};"));
                self.depth -= 1;
                self.line("}");
            }
            Stmt::StoreVector { buffer, to, array, from, count } => {
                let from = self.slot_after(from);
                let mut linear = self.indices.linear(to);
                if linear.add(Atom::Slot(count), 1).is_none() {
                    linear = Linear { terms: vec![(Atom::Other(to), 1), (Atom::Slot(count), 1)], constant: 0 };
                }
                self.line(&format!("for (int slot = 0; slot < {count}; ++slot) {{"));
                self.pragma("UNROLL");
                self.depth += 1;
                let value = self.variable(array, Some(&from));
                self.store(buffer, &linear, None, &value);
                self.depth -= 1;
                self.line("}");
            }
            // What opens scopes and what is refused is written elsewhere, or not at all.
            _ => {}
        }
    }

    /// The index of a slot among those from another on.
    fn slot_after(&mut self, first: ExprId) -> String {
        match self.kernel.exprs[first.index()] {
            Expr::Integer(0) => "slot".to_owned(),
            _ => format!("{} + slot", self.expr(first, Binding::Sum)),
        }
    }

    fn is_set(&self, var: VarId) -> bool {
        self.kernel.body.iter().any(|stmt| match *stmt {
            Stmt::Set(own, _) | Stmt::Reduce { var: own, .. } => own == var,
            _ => false,
        })
    }

    /// Notes that a variable occurs here.
    pub fn note(&mut self, var: VarId) {
        if self.sameness.differs(var) {
            self.found.runs.entry(var).or_default().insert(self.run.unwrap_or(0));
        }
    }

    /// A variable, or an element of it, where it is set.
    pub fn target(&mut self, var: VarId, index: Option<&str>) -> String {
        self.note(var);
        let name = &self.kernel.vars[var.index()].name;
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let is_array = self.sameness.differs(var) && self.is_array(var, self.run.unwrap_or(0));
        let lane = if is_array { format!("[{}]", self.fixed.lane) } else { String::new() };
        format!("{name}{index}{lane}")
    }

    /// The same where it is read.
    pub fn variable(&mut self, var: VarId, index: Option<&str>) -> String {
        self.found.read.insert(var);
        if self.sameness.is_settled(var, self.place) {
            return self.fixed.all[var.index()].clone();
        }
        self.target(var, index)
    }

    /// The name of what all lanes have combined of a variable.
    pub fn name_of_all(&self, var: VarId) -> String {
        self.fixed.all[var.index()].clone()
    }

    /// Whether anybody reads a variable.
    pub fn is_read(&self, var: VarId) -> bool {
        self.known.read.contains(&var)
    }

    /// A sum of parts and a number.
    pub fn sum(&mut self, parts: &[Part], constant: i64) -> (String, Binding) {
        let mut text = String::new();
        // What is subtracted comes after something that it is subtracted from.
        let (first, then): (Vec<Part>, Vec<Part>) = parts.iter().partition(|part| part.times >= 0);
        let mut constant = constant;
        if first.is_empty() && !then.is_empty() && constant > 0 {
            text = std::mem::take(&mut constant).to_string();
        }
        for Part { atom, times, by } in first.into_iter().chain(then) {
            let (mut part, mut binding) = self.atom(atom);
            let is_minus = times < 0;
            let factor = times.abs();
            if by != 1 {
                let own = if binding < Binding::Product { format!("({part})") } else { part };
                (part, binding) = (format!("{own} / {by}"), Binding::Product);
            }
            if factor != 1 {
                let own = if binding < Binding::Product { format!("({part})") } else { part };
                (part, binding) = (format!("{own} * {factor}"), Binding::Product);
            }
            let own = if binding < Binding::Product { format!("({part})") } else { part };
            match (text.is_empty(), is_minus) {
                (true, false) => text.push_str(&own),
                (true, true) => text = format!("-{}", if own.contains(' ') { format!("({own})") } else { own }),
                (false, false) => text.push_str(&format!(" + {own}")),
                (false, true) => text.push_str(&format!(" - {own}")),
            }
        }
        match (text.is_empty(), constant) {
            (true, _) => text = constant.to_string(),
            (false, 0) => {}
            (false, 1..) => text.push_str(&format!(" + {constant}")),
            (false, _) => text.push_str(&format!(" - {}", -constant)),
        }
        let is_whole = !text.contains(' ') && !text.starts_with('-');
        (text, if is_whole { Binding::Whole } else { Binding::Sum })
    }

    /// What a sum consists of.
    fn atom(&mut self, atom: Atom) -> (String, Binding) {
        match atom {
            Atom::Block(axis) => (self.block(usize::from(axis)), Binding::Whole),
            Atom::Lane => (self.fixed.lane.clone(), Binding::Whole),
            Atom::Slot(_) => ("slot".to_owned(), Binding::Whole),
            Atom::Var(var) => (self.variable(var, None), Binding::Whole),
            Atom::Other(id) => self.bound(id),
            Atom::Base(var) => (self.fixed.bases[var.index()].clone(), Binding::Whole),
        }
    }

    fn block(&self, axis: usize) -> String {
        if self.kernel.grid[axis] == 1 {
            return "0".to_owned();
        }
        BLOCKS[axis].to_owned()
    }

    /// Gives expressions that are the same for all lanes a name before a run.
    fn name_once(&mut self, places: &[usize]) {
        if self.kernel.threads == 1 {
            return;
        }
        for &place in places {
            self.inner.clear();
            let body = &self.kernel.body[place..self.after(place)];
            for stmt in body {
                if let Stmt::For { var, .. } = *stmt {
                    self.inner.insert(var);
                }
            }
            let is_nested = body.len() > 1 || self.is_masked();
            for (offset, stmt) in body.iter().enumerate() {
                if self.is_idle(place + offset) {
                    continue;
                }
                self.place = place + offset;
                let operands: Vec<ExprId> = values(stmt).collect();
                for operand in operands {
                    self.name_parts(operand, is_nested);
                }
            }
        }
        self.inner.clear();
    }

    /// Names the parts of an expression that are the same for all lanes and take something to compute.
    fn name_parts(&mut self, id: ExprId, is_nested: bool) {
        let kernel = self.kernel;
        if self.once.contains_key(&id) {
            return;
        }
        let expr = kernel.exprs[id.index()];
        let takes = match expr {
            Expr::Unary(..) | Expr::Binary(..) | Expr::MulAdd(..) => true,
            Expr::Convert(_, to, _) => to.is_float(),
            Expr::Load(..) | Expr::LoadShared(..) => !is_nested,
            Expr::Integer(_)
            | Expr::Number(..)
            | Expr::Thread
            | Expr::Block(_)
            | Expr::Var(_)
            | Expr::Element(..)
            | Expr::Index(..)
            | Expr::Select(_) => false,
        };
        if takes && !self.sameness.at(id, self.place) && self.is_there(id, is_nested) {
            let (ty, value) = (Language::Hls.scalar(self.scalars[id.index()]), self.expr(id, Binding::Ternary));
            let name = self.unique("same");
            self.line(&format!("const {ty} {name} = {value};"));
            self.once.insert(id, name);
            return;
        }
        // Where an element lies is written in other words.
        if expr.address().is_none() {
            expr.operands().for_each(|operand| self.name_parts(operand, is_nested));
        }
    }

    /// Whether all that an expression reads is there before the run.
    fn is_there(&self, id: ExprId, is_nested: bool) -> bool {
        let expr = &self.kernel.exprs[id.index()];
        let is_own = match expr {
            Expr::Var(var) | Expr::Element(var, _) => !self.inner.contains(var),
            Expr::Load(..) | Expr::LoadShared(..) => !is_nested,
            _ => true,
        };
        is_own && expr.operands().all(|operand| self.is_there(operand, is_nested))
    }
}

/// The expressions of a statement that are values rather than places.
fn values(stmt: &Stmt) -> impl Iterator<Item = ExprId> {
    let values: [Option<ExprId>; 2] = match *stmt {
        Stmt::Let(_, value)
        | Stmt::Set(_, value)
        | Stmt::SetElement(_, _, value)
        | Stmt::Store(_, _, value)
        | Stmt::StoreShared(_, _, value)
        | Stmt::If(value) => [Some(value), None],
        _ => [None; 2],
    };
    values.into_iter().flatten()
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

    fn own(&mut self, id: ExprId) -> Option<(String, Binding)> {
        if let Some(name) = self.once.get(&id) {
            return Some((name.clone(), Binding::Whole));
        }
        let kernel = self.kernel;
        Some(match kernel.exprs[id.index()] {
            Expr::Thread if kernel.threads == 1 => ("0".to_owned(), Binding::Whole),
            Expr::Thread => (self.fixed.lane.clone(), Binding::Whole),
            Expr::Block(axis) => (self.block(usize::from(axis)), Binding::Whole),
            Expr::Var(var) if self.indices.stride(var).is_some() => {
                let linear = self.indices.linear(id);
                self.linear(&linear)
            }
            Expr::Var(var) => (self.variable(var, None), Binding::Whole),
            Expr::Element(var, index) => {
                let index = self.expr(index, Binding::Ternary);
                (self.variable(var, Some(&index)), Binding::Whole)
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
