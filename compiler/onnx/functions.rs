//! Functions that a model defines itself: operators written in terms of other operators.

use std::collections::HashMap;

use onnx_protobuf::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};

use super::opsets::{Opsets, domain_name};

/// The functions of a model, by domain, name and overload.
pub struct Functions<'m>(HashMap<(&'m str, &'m str, &'m str), Function<'m>>);

/// One function.
#[derive(Clone, Copy)]
pub struct Function<'m> {
    /// Its definition.
    pub proto: &'m FunctionProto,
    /// Its position in the model, which identifies it.
    pub index: usize,
}

impl<'m> Functions<'m> {
    /// The functions of `model`.
    pub fn new(model: &'m ModelProto) -> Self {
        let key = |(index, proto): (usize, &'m FunctionProto)| {
            let key = (domain_name(&proto.domain), proto.name.as_str(), proto.overload.as_str());
            (key, Function { proto, index })
        };
        Functions(model.functions.iter().enumerate().map(key).collect())
    }

    /// The function that a node calls, if it calls one. A model's own definition of an operator goes before tcc's.
    pub fn get(&self, node: &NodeProto) -> Option<Function<'m>> {
        self.0.get(&(domain_name(&node.domain), node.op_type.as_str(), node.overload.as_str())).copied()
    }
}

impl<'m> Function<'m> {
    /// What messages call it.
    pub fn name(&self) -> String {
        super::error::shown(&format!("{}.{}", self.proto.domain, self.proto.name))
    }

    /// The operator sets that its nodes are written for.
    pub fn opsets(&self) -> Opsets {
        Opsets::new(&self.proto.opset_import)
    }

    /// Its nodes, with references to its attributes replaced by what the call or the defaults say. An attribute that has
    /// neither is left out of the nodes that refer to it: their operators have a default for it, or say that they need it.
    pub fn body(&self, call: &NodeProto) -> Vec<NodeProto> {
        let defaults = self.proto.attribute_proto.iter();
        let values = defaults.chain(&call.attribute).map(|attribute| (attribute.name.as_str(), attribute)).collect();
        let mut nodes = self.proto.node.clone();
        nodes.iter_mut().for_each(|node| substitute(node, &values));
        nodes
    }
}

fn substitute(node: &mut NodeProto, values: &HashMap<&str, &AttributeProto>) {
    node.attribute.retain_mut(|attribute| {
        if !attribute.ref_attr_name.is_empty() {
            let Some(&value) = values.get(attribute.ref_attr_name.as_str()) else { return false };
            let name = std::mem::take(&mut attribute.name);
            *attribute = AttributeProto { name, ..value.clone() };
            return true;
        }
        attribute.g.as_mut().into_iter().chain(&mut attribute.graphs).for_each(|body| substitute_body(body, values));
        true
    });
}

fn substitute_body(body: &mut GraphProto, values: &HashMap<&str, &AttributeProto>) {
    body.node.iter_mut().for_each(|node| substitute(node, values));
}
