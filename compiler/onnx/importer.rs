//! Lowers the nodes of a graph, of the bodies it runs and of the functions it calls.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use onnx_protobuf::{GraphProto, NodeProto, TensorProto};
use tcc_ir::{Def, Graph, Tensor, ValueId, Work};

use super::budget::Budget;
use super::context::{Bodies, NodeContext};
use super::error::{ImportError, LowerError, NodeError, shown};
use super::functions::{Function, Functions};
use super::opsets::Opsets;
use super::order;
use super::store::{MAX_NESTING, TensorStore};
use super::unsupported::{Branches, Operators, Search};

/// The state of one import.
pub(super) struct Importer<'m> {
    functions: &'m Functions<'m>,
    operators: &'m Operators,
    tensors: &'m TensorStore,
    /// Innermost last; never empty while nodes are lowered.
    scopes: Vec<Scope>,
    /// Functions that are being expanded, by their position in the model.
    calls: Vec<usize>,
    budget: Budget,
    /// Values of truth inputs that branches may be chosen by.
    switches: BTreeMap<String, bool>,
}

/// The names that are visible in a graph, a body or a function.
struct Scope {
    values: HashMap<Rc<str>, ValueId>,
    /// Whether the names of the scopes around are visible too: in bodies, but not in functions.
    open: bool,
    opsets: Rc<Opsets>,
    /// What stands before the names of a function's nodes: the node that calls it.
    prefix: Rc<str>,
}

impl Scope {
    fn new(open: bool, opsets: Rc<Opsets>, prefix: Rc<str>) -> Self {
        Scope { values: HashMap::new(), open, opsets, prefix }
    }
}

impl<'m> Importer<'m> {
    pub(super) fn new(
        functions: &'m Functions<'m>,
        operators: &'m Operators,
        tensors: &'m TensorStore,
        opsets: Opsets,
    ) -> Self {
        let scope = Scope::new(false, Rc::new(opsets), Rc::from(""));
        Importer {
            functions,
            operators,
            tensors,
            scopes: vec![scope],
            calls: Vec::new(),
            budget: Budget::default(),
            switches: BTreeMap::new(),
        }
    }

    /// Gives a value a name in the innermost scope. `false` if the name is taken there.
    pub(super) fn bind(&mut self, name: &str, value: ValueId) -> bool {
        match self.scopes.last_mut() {
            Some(scope) => scope.values.insert(Rc::from(name), value).is_none(),
            None => false,
        }
    }

    /// The value that a name stands for.
    pub(super) fn lookup(&self, name: &str) -> Option<ValueId> {
        for scope in self.scopes.iter().rev() {
            if let Some(&value) = scope.values.get(name) {
                return Some(value);
            }
            if !scope.open {
                break;
            }
        }
        None
    }

    /// Lowers a graph whose inputs are bound: its constants, then its nodes.
    pub(super) fn graph(&mut self, graph: &mut Graph, proto: &GraphProto) -> Result<(), ImportError> {
        for initializer in &proto.initializer {
            let tensor = self.tensors.get(initializer)?;
            let value = graph.add_constant(initializer.name.as_str(), tensor);
            self.bind(&initializer.name, value);
        }
        self.nodes(graph, &proto.node)
    }

    fn nodes(&mut self, graph: &mut Graph, nodes: &[NodeProto]) -> Result<(), ImportError> {
        for index in order::sort(nodes)? {
            let node = &nodes[index];
            let name = match self.scopes.last() {
                Some(scope) if !scope.prefix.is_empty() => format!("{}/{}", scope.prefix, order::node_name(node)),
                _ => order::node_name(node),
            };
            graph.set_origin(name.as_str());
            self.node(graph, node, &name).map_err(|error| match error {
                // What is wrong inside a body or a function says so itself.
                LowerError::Inner(error) => *error,
                error => ImportError::Node(NodeError { node: name, op_type: shown(&node.op_type), error }),
            })?;
        }
        Ok(())
    }

    fn node(&mut self, graph: &mut Graph, node: &NodeProto, name: &str) -> Result<(), LowerError> {
        let inputs = node
            .input
            .iter()
            .map(|name| match name.as_str() {
                "" => Ok(None),
                name => self.lookup(name).map(Some).ok_or_else(|| LowerError::Undefined(shown(name))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let before = graph.value_count();
        self.budget.node(graph)?;
        let outputs = if let Some(function) = self.functions.get(node) {
            self.call(graph, function, node, &inputs, name)?
        } else {
            let lower = self.operators.get(node).ok_or_else(|| self.unsupported(std::slice::from_ref(node)))?;
            let opset = self.scopes.last().map_or(0, |scope| scope.opsets.version(&node.domain));
            lower(&mut NodeContext::new(graph, node, inputs, opset, self))?
        };
        for (index, name) in node.output.iter().enumerate() {
            if name.is_empty() {
                continue;
            }
            let Some(&value) = outputs.get(index) else {
                return Err(LowerError::unsupported(format!("output {index} (`{}`) is not supported", shown(name))));
            };
            if !self.bind(name, value) {
                return Err(LowerError::Redefined(shown(name)));
            }
            // Values that only pass through keep the name they were born with.
            if value.index() >= before && !matches!(graph.value(value).def, Def::Input(_)) {
                graph.rename(value, name.as_str());
            }
        }
        Ok(())
    }

    fn unsupported(&self, nodes: &[NodeProto]) -> ImportError {
        let mut search = Search::new(self.functions, self.operators, Branches::Skip);
        search.nodes(nodes, self.scopes.len());
        search.found.into()
    }

    /// Enters a scope, runs `inner` in it, and leaves it whatever comes of it.
    fn scoped<T>(
        &mut self,
        graph: &mut Graph,
        scope: Scope,
        name: &str,
        inner: impl FnOnce(&mut Self, &mut Graph) -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        if self.scopes.len() > MAX_NESTING {
            return Err(ImportError::Nesting(shown(name)));
        }
        let origin = graph.origin().clone();
        self.scopes.push(scope);
        let result = inner(self, graph);
        self.scopes.pop();
        graph.set_origin(origin);
        result
    }

    fn outputs<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<ValueId>, ImportError> {
        names.map(|name| self.lookup(name).ok_or_else(|| ImportError::Output(shown(name)))).collect()
    }

    fn call(
        &mut self,
        graph: &mut Graph,
        function: Function<'m>,
        node: &NodeProto,
        inputs: &[Option<ValueId>],
        name: &str,
    ) -> Result<Vec<ValueId>, LowerError> {
        if self.calls.contains(&function.index) {
            return Err(ImportError::Recursion(function.name()).into());
        }
        if inputs.len() > function.proto.input.len() {
            return Err(LowerError::invalid(format!(
                "{} takes {} inputs, but {} are given",
                function.name(),
                function.proto.input.len(),
                inputs.len()
            )));
        }
        let opsets = function.opsets();
        opsets.check()?;
        let mut scope = Scope::new(false, Rc::new(opsets), Rc::from(name));
        for (name, value) in function.proto.input.iter().zip(inputs) {
            if let Some(value) = value {
                scope.values.insert(Rc::from(name.as_str()), *value);
            }
        }
        // An input that is left out of the call is one that is left out of the nodes which use it.
        let missing: HashSet<&str> =
            function.proto.input.iter().map(String::as_str).filter(|&name| !scope.values.contains_key(name)).collect();
        let mut body = function.body(node);
        if !missing.is_empty() {
            let names = body.iter_mut().flat_map(|node| &mut node.input);
            names.filter(|name| missing.contains(name.as_str())).for_each(String::clear);
        }
        self.calls.push(function.index);
        let result = self.scoped(graph, scope, name, |this, graph| {
            this.nodes(graph, &body)?;
            this.outputs(function.proto.output.iter().map(String::as_str))
        });
        self.calls.pop();
        Ok(result?)
    }
}

impl Importer<'_> {
    /// Lets branches be chosen by these inputs.
    pub(super) fn set_switches(&mut self, switches: &BTreeMap<String, bool>) {
        self.switches.clone_from(switches);
    }
}

impl Bodies for Importer<'_> {
    fn switch(&self, input: &str) -> Option<bool> {
        self.switches.get(input).copied()
    }

    fn inline(&mut self, graph: &mut Graph, body: &GraphProto, inputs: &[ValueId]) -> Result<Vec<ValueId>, LowerError> {
        self.budget.node(graph)?;
        let missing = self.unsupported(&body.node);
        if matches!(&missing, ImportError::Unsupported(found) if !found.0.is_empty()) {
            return Err(missing.into());
        }
        if inputs.len() != body.input.len() {
            return Err(LowerError::invalid(format!(
                "the body `{}` takes {} inputs, but {} are given",
                shown(&body.name),
                body.input.len(),
                inputs.len()
            )));
        }
        let (opsets, prefix) = match self.scopes.last() {
            Some(scope) => (scope.opsets.clone(), scope.prefix.clone()),
            None => (Rc::new(Opsets::default()), Rc::from("")),
        };
        let mut scope = Scope::new(true, opsets, prefix);
        for (input, &value) in body.input.iter().zip(inputs) {
            scope.values.insert(Rc::from(input.name.as_str()), value);
        }
        let result = self.scoped(graph, scope, &body.name, |this, graph| {
            this.graph(graph, body)?;
            this.outputs(body.output.iter().map(|output| output.name.as_str()))
        });
        Ok(result?)
    }

    fn tensor(&mut self, proto: &TensorProto) -> Result<Tensor, LowerError> {
        Ok(self.tensors.get(proto)?)
    }

    fn spend(&mut self, work: Work, bytes: usize) -> Result<(), LowerError> {
        Ok(self.budget.fold(work, bytes)?)
    }
}
