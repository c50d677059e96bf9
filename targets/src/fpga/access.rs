//! How the lanes of an operation reach a memory.
//!
//! A memory has words of as many elements as it has banks (external memory: beats of as many elements as fit), so element `e` of a
//! parameter lies in bank `e % banks` of word `e / banks`. What an index is made of decides what hardware an access needs: where
//! only a part is known at run time that is a multiple of the banks, every lane's bank is known now, and lanes of one word share an
//! address ([`Pattern::Fixed`]). Where lanes are apart by known distances, but it is not known from which bank on, all banks are
//! behind a switch ([`Pattern::Shifted`]). Everything else is an address for each lane ([`Pattern::Scattered`]).

/// How the lanes of a load or store are spread over a memory. Each has one copy of the access for every copy of the operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The operand is the number of a word, the same for all lanes: copy `c` accesses bank `places[c].bank` of the word that lies
    /// `places[c].word` behind it.
    Fixed(Vec<Place>),
    /// The operand is the number of an element, the same for all lanes: copy `c` accesses the element `distances[c]` behind it.
    Shifted(Vec<i64>),
    /// The operand is the number of an element for each copy.
    Scattered,
}

/// Where a copy of a [`Pattern::Fixed`] access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Words behind the one that the operand names.
    pub word: i64,
    /// The bank.
    pub bank: u32,
}
