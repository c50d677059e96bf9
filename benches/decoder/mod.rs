//! A decoder like Llama's, of any depth and as exporters write it: what the optimiser has most to find in. One token after
//! a cache, with grouped keys, rotary embeddings, RMS norms and a gated feed-forward part, all in single operators.

use std::fmt::Write as _;

/// Width of the residual stream.
const HIDDEN: usize = 64;
/// Query heads, and the heads of keys and values.
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
/// Width of a head.
const HEAD: usize = HIDDEN / HEADS;
/// Width of the feed-forward part.
const INTERMEDIATE: usize = 128;
/// Tokens in the cache.
const PAST: usize = 31;

/// A graph in textual form.
struct Writer {
    text: String,
    next: usize,
}

/// A value: its number and its shape.
#[derive(Clone)]
struct Value {
    id: usize,
    shape: Vec<usize>,
}

impl Writer {
    fn define(&mut self, shape: &[usize], write: impl FnOnce(usize, &str) -> String) -> Value {
        let id = self.next;
        self.next += 1;
        let _ = writeln!(self.text, "{}", write(id, &format!("f32{shape:?}").replace(' ', "")));
        Value { id, shape: shape.to_vec() }
    }

    fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        self.define(shape, |id, ty| format!("input %{id} \"{name}\": {ty}"))
    }

    fn token(&mut self) -> Value {
        self.define(&[1, 1], |id, _| format!("input %{id} \"token\": i64[1,1]"))
    }

    fn weights(&mut self, shape: &[usize]) -> Value {
        self.define(shape, |id, ty| format!("const %{id}: {ty} = seeded {id}"))
    }

    fn number(&mut self, value: f64) -> Value {
        self.define(&[], |id, ty| format!("const %{id}: {ty} = [{value:?}]"))
    }

    fn op(&mut self, op: &str, operands: &[&Value], shape: &[usize]) -> Value {
        let operands: Vec<String> = operands.iter().map(|value| format!("%{}", value.id)).collect();
        self.define(shape, |id, ty| format!("%{id}: {ty} = {op}({})", operands.join(", ")))
    }

    /// Element-wise; the first operand has the result's shape.
    fn map(&mut self, op: &str, operands: &[&Value]) -> Value {
        self.op(op, operands, &operands[0].shape.clone())
    }

    fn reshape(&mut self, x: &Value, shape: &[usize]) -> Value {
        self.op(&format!("reshape[shape={}]", list(shape)), &[x], shape)
    }

    fn product(&mut self, x: &Value, columns: usize) -> Value {
        let rows = &x.shape[..x.shape.len() - 1];
        let weights = self.weights(&[x.shape[rows.len()], columns]);
        self.op("mat_mul", &[x, &weights], &[rows, &[columns]].concat())
    }

    fn norm(&mut self, x: &Value) -> Value {
        let square = self.map("mul", &[x, x]);
        let mean = self.op("reduce[function=\"mean\",axes=[2]]", &[&square], &[1, 1, 1]);
        let epsilon = self.number(1e-5);
        let shifted = self.map("add", &[&mean, &epsilon]);
        let scale = self.map("rsqrt", &[&shifted]);
        let normed = self.map("mul", &[x, &scale]);
        let weight = self.weights(&[HIDDEN]);
        self.map("mul", &[&normed, &weight])
    }

    /// Heads before positions.
    fn heads(&mut self, x: &Value, heads: usize) -> Value {
        let apart = self.reshape(x, &[1, 1, heads, HEAD]);
        self.op("transpose[perm=[0,2,1,3]]", &[&apart], &[1, heads, 1, HEAD])
    }

    fn rotated(&mut self, x: &Value, angles: &[Value; 2]) -> Value {
        let mut half = x.shape.clone();
        half[3] = HEAD / 2;
        let part = |writer: &mut Self, start: usize| {
            let slice = format!("slice[starts=[0,0,0,{start}],steps=[1,1,1,1],sizes={}]", list(&half));
            writer.op(&slice, &[x], &half)
        };
        let (first, second) = (part(self, 0), part(self, HEAD / 2));
        let turned = self.map("neg", &[&second]);
        let swapped = self.op("concat[axis=3]", &[&turned, &first], &x.shape);
        let (straight, across) = (self.map("mul", &[x, &angles[0]]), self.map("mul", &[&swapped, &angles[1]]));
        self.map("add", &[&straight, &across])
    }

    /// Each head of a cache for all query heads that share it.
    fn shared(&mut self, cache: &Value) -> Value {
        let group = HEADS / KEY_HEADS;
        let apart = self.reshape(cache, &[1, KEY_HEADS, 1, PAST + 1, HEAD]);
        let shape = [1, KEY_HEADS, group, PAST + 1, HEAD];
        let broad = self.op(&format!("broadcast[shape={}]", list(&shape)), &[&apart], &shape);
        self.reshape(&broad, &[1, HEADS, PAST + 1, HEAD])
    }
}

fn list(numbers: &[usize]) -> String {
    format!("{numbers:?}").replace(' ', "")
}

/// A decoder of so many layers, in textual form. Its results are the normalised stream and the caches.
pub fn decoder(layers: usize) -> String {
    let mut writer = Writer { text: format!("graph \"decoder-{layers}\" {{\n"), next: 0 };
    let mut outputs = String::new();
    let token = writer.token();
    let table = writer.weights(&[100, HIDDEN]);
    let mut x = writer.op("gather[axis=0]", &[&table, &token], &[1, 1, HIDDEN]);
    let mask = writer.input("mask", &[1, 1, 1, PAST + 1]);
    let angle = writer.input("angle", &[1, 1, 1, HEAD / 2]);
    let angle = writer.op("concat[axis=3]", &[&angle, &angle], &[1, 1, 1, HEAD]);
    let angles = ["cos", "sin"].map(|function| writer.map(function, &[&angle]));
    for layer in 0..layers {
        let normed = writer.norm(&x);
        let query = writer.product(&normed, HIDDEN);
        let query = writer.heads(&query, HEADS);
        let query = writer.rotated(&query, &angles);
        let mut caches = Vec::new();
        for name in ["key", "value"] {
            let past = writer.input(&format!("past.{layer}.{name}"), &[1, KEY_HEADS, PAST, HEAD]);
            let new = writer.product(&normed, KEY_HEADS * HEAD);
            let mut new = writer.heads(&new, KEY_HEADS);
            if name == "key" {
                new = writer.rotated(&new, &angles);
            }
            let cache = writer.op("concat[axis=2]", &[&past, &new], &[1, KEY_HEADS, PAST + 1, HEAD]);
            let _ = writeln!(outputs, "output \"present.{layer}.{name}\" = %{}", cache.id);
            caches.push(writer.shared(&cache));
        }
        let keys = writer.op("transpose[perm=[0,1,3,2]]", &[&caches[0]], &[1, HEADS, HEAD, PAST + 1]);
        let scores = writer.op("mat_mul", &[&query, &keys], &[1, HEADS, 1, PAST + 1]);
        let scale = writer.number(1.0 / (HEAD as f64).sqrt());
        let scaled = writer.map("mul", &[&scores, &scale]);
        let masked = writer.map("add", &[&scaled, &mask]);
        let weights = writer.map("softmax[axis=3]", &[&masked]);
        let mixed = writer.op("mat_mul", &[&weights, &caches[1]], &[1, HEADS, 1, HEAD]);
        let mixed = writer.op("transpose[perm=[0,2,1,3]]", &[&mixed], &[1, 1, HEADS, HEAD]);
        let mixed = writer.reshape(&mixed, &[1, 1, HIDDEN]);
        let projected = writer.product(&mixed, HIDDEN);
        x = writer.map("add", &[&x, &projected]);
        let normed = writer.norm(&x);
        let gate = writer.product(&normed, INTERMEDIATE);
        let up = writer.product(&normed, INTERMEDIATE);
        let open = writer.map("sigmoid", &[&gate]);
        let gate = writer.map("mul", &[&gate, &open]);
        let both = writer.map("mul", &[&gate, &up]);
        let down = writer.product(&both, HIDDEN);
        x = writer.map("add", &[&x, &down]);
    }
    let normed = writer.norm(&x);
    let _ = writeln!(outputs, "output \"y\" = %{}", normed.id);
    writer.text + &outputs + "}\n"
}
