//! A check of protobuf's wire format before a model is parsed.
//!
//! The protobuf runtime recurses without limit on groups nested in unknown fields (RUSTSEC-2024-0437), and its errors
//! do not say where in a file the trouble is. This scanner walks the messages that ONNX defines with an explicit stack,
//! steps over everything else, and refuses groups (which ONNX never uses), excessive nesting, and fields that pass the end
//! of their message. It touches only the headers of fields, so that a mapped file of weights is not read.

/// Deepest nesting of messages. Protobuf's own default is 100; each level of control flow takes three.
const MAX_DEPTH: usize = 96;

/// Protobuf lengths are 32-bit and signed in most implementations; a larger field is refused instead of misread.
const MAX_FIELD_BYTES: u64 = i32::MAX as u64;

/// What breaks the wire format, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field says that it is longer than the message that holds it.
    #[error("field {field} at byte {offset} is cut off: it should be {len} bytes long, but only {left} are left")]
    Truncated {
        /// Where the field starts.
        offset: usize,
        /// Its number.
        field: u64,
        /// Its declared length.
        len: u64,
        /// Bytes left in its message.
        left: usize,
    },
    /// A number does not end within its message, or has more than 64 bits.
    #[error("the number at byte {0} does not end where it should")]
    Varint(usize),
    /// A field starts a group.
    #[error("the field at byte {0} is a protobuf group, which ONNX does not use")]
    Group(usize),
    /// A field has a number or a wire type that do not exist.
    #[error("byte {0} does not start a protobuf field")]
    Field(usize),
    /// Messages are nested too deeply.
    #[error("the message at byte {0} is nested more than {MAX_DEPTH} levels deep")]
    Depth(usize),
}

/// The messages of ONNX, as far as they hold other messages or may hide unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `ModelProto`.
    Model,
    /// `TensorProto`.
    Tensor,
    /// `TypeProto`, which some test data stores on its own.
    Type,
    #[doc(hidden)]
    Graph,
    #[doc(hidden)]
    Node,
    #[doc(hidden)]
    Attribute,
    #[doc(hidden)]
    SparseTensor,
    #[doc(hidden)]
    ValueInfo,
    #[doc(hidden)]
    Function,
    #[doc(hidden)]
    Training,
    #[doc(hidden)]
    Annotation,
    #[doc(hidden)]
    TensorType,
    #[doc(hidden)]
    ElementType,
    #[doc(hidden)]
    MapType,
    #[doc(hidden)]
    Shape,
    /// A message without messages in it.
    #[doc(hidden)]
    Leaf,
}

impl Message {
    /// The message that a length-delimited field holds, if it holds one.
    fn child(self, field: u64) -> Option<Message> {
        use Message::*;
        Some(match (self, field) {
            (Model, 7) => Graph,
            (Model, 8 | 14) => Leaf,
            (Model, 20) => Training,
            (Model, 25) => Function,
            (Training, 1 | 2) => Graph,
            (Training, 3 | 4) => Leaf,
            (Graph, 1) => Node,
            (Graph, 5) => Tensor,
            (Graph, 11..=13) => ValueInfo,
            (Graph, 14) => Annotation,
            (Graph, 15) => SparseTensor,
            (Graph, 16) => Leaf,
            (Node, 5) => Attribute,
            (Node, 9) => Leaf,
            (Attribute, 5 | 10) => Tensor,
            (Attribute, 6 | 11) => Graph,
            (Attribute, 14 | 15) => Type,
            (Attribute, 22 | 23) => SparseTensor,
            (Function, 7) => Node,
            (Function, 9 | 14) => Leaf,
            (Function, 11) => Attribute,
            (Function, 12) => ValueInfo,
            (Tensor, 3 | 13 | 16) => Leaf,
            (SparseTensor, 1 | 2) => Tensor,
            (ValueInfo, 2) => Type,
            (ValueInfo, 4) | (Annotation, 2) => Leaf,
            (Type, 1 | 8) => TensorType,
            (Type, 4 | 9) => ElementType,
            (Type, 5) => MapType,
            (TensorType, 2) => Shape,
            (ElementType, 1) | (MapType, 2) => Type,
            (Shape, 1) => Leaf,
            _ => return None,
        })
    }
}

/// Checks that `bytes` are a well-formed message of kind `root`.
pub fn check(bytes: &[u8], root: Message) -> Result<(), WireError> {
    let mut open = vec![(root, bytes.len())];
    let mut at = 0;
    while let Some(&(message, end)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        let offset = at;
        let key = varint(bytes, &mut at, end)?;
        let field = key >> 3;
        if field == 0 || key > u64::from(u32::MAX) {
            return Err(WireError::Field(offset));
        }
        let len = match key & 7 {
            0 => {
                varint(bytes, &mut at, end)?;
                continue;
            }
            1 => 8,
            2 => varint(bytes, &mut at, end)?,
            3 | 4 => return Err(WireError::Group(offset)),
            5 => 4,
            _ => return Err(WireError::Field(offset)),
        };
        let left = end - at;
        let size = match usize::try_from(len) {
            Ok(size) if size <= left && len <= MAX_FIELD_BYTES => size,
            _ => return Err(WireError::Truncated { offset, field, len, left }),
        };
        match message.child(field) {
            Some(child) if key & 7 == 2 => {
                if open.len() >= MAX_DEPTH {
                    return Err(WireError::Depth(offset));
                }
                open.push((child, at + size));
            }
            _ => at += size,
        }
    }
    Ok(())
}

fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64, WireError> {
    let start = *at;
    let mut value = 0u64;
    for (index, &byte) in bytes[start..end].iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *at = start + index + 1;
            return Ok(value);
        }
    }
    Err(WireError::Varint(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_nested_messages_and_unknown_fields() {
        // graph { node { input: "x" } }, then an unknown fixed32 field 99.
        let bytes = [0x3a, 5, 0x0a, 3, 0x0a, 1, b'x', 0x9d, 0x06, 1, 2, 3, 4];
        assert_eq!(check(&bytes, Message::Model), Ok(()));
    }

    #[test]
    fn names_the_byte_where_a_field_is_cut_off() {
        let bytes = [0x3a, 3, 0x0a, 3, 0x0a];
        let expected = WireError::Truncated { offset: 2, field: 1, len: 3, left: 1 };
        assert_eq!(check(&bytes, Message::Model), Err(expected));
    }

    #[test]
    fn refuses_groups_wherever_the_parser_would_enter_them() {
        assert_eq!(check(&[0x0b; 1000], Message::Model), Err(WireError::Group(0)));
        assert_eq!(check(&[0x3a, 1, 0x0b], Message::Model), Err(WireError::Group(2)));
    }

    #[test]
    fn refuses_deep_nesting() {
        // Type.sequence_type.elem_type and so on, written inside out.
        let mut bytes = Vec::new();
        for level in 0..200 {
            let mut outer = vec![if level % 2 == 0 { 0x0a } else { 0x22 }];
            let mut len = bytes.len();
            while len >= 0x80 {
                outer.push(len as u8 | 0x80);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.extend(bytes);
            bytes = outer;
        }
        assert!(matches!(check(&bytes, Message::Type), Err(WireError::Depth(_))));
    }

    #[test]
    fn endless_numbers_end() {
        assert_eq!(check(&[0xff; 64], Message::Model), Err(WireError::Varint(0)));
    }
}
