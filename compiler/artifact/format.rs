//! The messages of `program.proto`.

#![allow(missing_docs, reason = "generated; the fields are described in program.proto")]

include!(concat!(env!("OUT_DIR"), "/tcc.rs"));
