//! Memories on the part as hardware: banks, and who has which of their ports when.

use std::collections::BTreeSet;

use super::operators::Slot;
use super::text::Text;
use crate::fpga::design::Storage;
use crate::fpga::nest::{ArrayId, OpId};

/// A memory: banks of words of one element.
#[derive(Debug)]
pub struct Banked {
    /// An identifier.
    pub name: String,
    /// Bits of an element.
    pub width: u32,
    /// Words of each bank.
    pub words: u64,
    /// What it is built from.
    pub storage: Storage,
    /// The number of its first bank for whoever loads it from outside; `None` of one that only functions see.
    pub host: Option<u32>,
    /// Whether a word that is read is there in the same cycle.
    pub immediate: bool,
    banks: Vec<Bank>,
}

#[derive(Debug, Default)]
struct Bank {
    ports: Vec<Port>,
}

#[derive(Debug, Default)]
struct Port {
    slots: BTreeSet<Slot>,
    /// Those in which it writes.
    written: BTreeSet<Slot>,
    /// Words that are read.
    same: BTreeSet<Same>,
    /// The flag that is set while each user has it, and its address.
    reads: Vec<(String, String)>,
    /// The same, with what is written.
    writes: Vec<(String, String, String)>,
}

/// Ports of a bank of block RAM and of UltraRAM (UG573: both have two).
const PORTS: usize = 2;

/// What tells that two reads are of the same word: the block, the cycle in it, and what the address is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Same {
    /// The block.
    pub block: u32,
    /// The cycle.
    pub stage: u32,
    /// The array, the value that the address is made of, and how far the word is from it.
    pub word: (ArrayId, OpId, i64),
}

/// What a port is wanted for.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// To read, the word of others perhaps.
    Read(Option<Same>),
    /// To write.
    Write,
}

/// A word to read or write: the flag that is set while the port is wanted, and the address.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// When.
    pub slot: Slot,
    /// The flag.
    pub flag: String,
    /// The address.
    pub address: String,
    /// Which word it is, if others may read it with it.
    pub same: Option<Same>,
}

impl Banked {
    /// A memory without users yet.
    pub fn new(name: &str, width: u32, (banks, words): (u32, u64), storage: Storage, host: Option<u32>) -> Banked {
        let banks = (0..banks).map(|_| Bank::default()).collect();
        Banked { name: name.to_owned(), width, words: words.max(1), storage, host, immediate: false, banks }
    }

    /// How many banks it has.
    pub fn banks(&self) -> u32 {
        self.banks.len() as u32
    }

    /// Bits of an address.
    pub fn address_bits(&self) -> u32 {
        self.words.next_power_of_two().trailing_zeros().max(1)
    }

    fn is_tables(&self) -> bool {
        self.storage == Storage::Lutram
    }

    /// Whether a port is free in a slot. Of two ports one writes at most.
    pub fn is_free(&self, bank: u32, slot: Slot, wanted: Use) -> bool {
        self.shared(bank, wanted).is_some() || self.port(bank, slot, wanted).is_some()
    }

    /// The port that reads the same word.
    fn shared(&self, bank: u32, wanted: Use) -> Option<usize> {
        let Use::Read(Some(same)) = wanted else { return None };
        self.banks[bank as usize].ports.iter().position(|port| port.same.contains(&same))
    }

    /// The port that is free for that, if there is one; it may be a new one.
    fn port(&self, bank: u32, slot: Slot, wanted: Use) -> Option<usize> {
        let ports = &self.banks[bank as usize].ports;
        let is_free = |port: usize| ports.get(port).is_none_or(|port| !port.slots.contains(&slot));
        let writes = matches!(wanted, Use::Write);
        if self.is_tables() {
            // One port writes, and any number of others read.
            return if writes { Some(0).filter(|&port| is_free(port)) } else { (1..).find(|&port| is_free(port)) };
        }
        if writes && ports.iter().any(|port| port.written.contains(&slot)) {
            return None;
        }
        let order: [usize; PORTS] = if writes { [1, 0] } else { [0, 1] };
        order.into_iter().find(|&port| is_free(port))
    }

    fn taken(&mut self, bank: u32, slot: Slot, wanted: Use) -> Option<(usize, &mut Port)> {
        let port = self.port(bank, slot, wanted)?;
        let ports = &mut self.banks[bank as usize].ports;
        while ports.len() <= port {
            ports.push(Port::default());
        }
        ports[port].slots.insert(slot);
        Some((port, &mut ports[port]))
    }

    /// Reads a word of a bank: the name of what is there one cycle later. `None` if no port is free.
    pub fn read(&mut self, bank: u32, wanted: Wanted) -> Option<String> {
        let name = self.name.clone();
        if let Some(port) = self.shared(bank, Use::Read(wanted.same)) {
            return Some(format!("{name}_b{bank}_q{port}"));
        }
        let (port, own) = self.taken(bank, wanted.slot, Use::Read(None))?;
        own.same.extend(wanted.same);
        own.reads.push((wanted.flag, wanted.address));
        Some(format!("{name}_b{bank}_q{port}"))
    }

    /// Writes a word of a bank where a flag is set. `None` if no port is free.
    pub fn write(&mut self, bank: u32, wanted: Wanted, value: String) -> Option<()> {
        let (_, own) = self.taken(bank, wanted.slot, Use::Write)?;
        own.written.insert(wanted.slot);
        own.writes.push((wanted.flag, wanted.address, value));
        Some(())
    }

    /// Writes all banks, and returns for each what the host reads.
    pub fn finish(self, text: &mut Text) -> Vec<String> {
        let mut seen = Vec::new();
        let width = self.width;
        let bits = self.address_bits();
        let storage = match self.storage {
            Storage::Lutram => 0,
            Storage::Bram => 1,
            Storage::Uram => 2,
        };
        for (number, mut bank) in self.banks.into_iter().enumerate() {
            let name = format!("{}_b{number}", self.name);
            let common = format!(".WIDTH({width}), .WORDS({}), .ADDRESS({bits})", self.words);
            while bank.ports.len() < PORTS {
                bank.ports.push(Port::default());
            }
            if let Some(first) = self.host {
                let own = format!("host_bank == {}", first as usize + number);
                let address = format!("host_word[{}:0]", bits - 1);
                let (reader, writer) = if storage == 0 { (1, 0) } else { (0, 1) };
                bank.ports[reader].reads.push((format!("({own})"), address.clone()));
                let value = format!("host_in[{}:0]", width - 1);
                bank.ports[writer].writes.push((format!("(host_write && {own})"), address, value));
            }
            let mut ports = vec![".clk".to_owned()];
            let is_simple = bank.ports[0].writes.is_empty() && bank.ports[1].reads.is_empty();
            let reads = |text: &mut Text, port: usize, own: &Port| {
                let users = own.reads.iter().map(|(flag, address)| (flag, address));
                let users = users.chain(own.writes.iter().map(|(flag, address, _)| (flag, address)));
                text.wire(&format!("{name}_a{port}"), bits, &chosen(users, bits));
                text.vector(&format!("{name}_q{port}"), width);
            };
            let writes = |text: &mut Text, port: usize, own: &Port| {
                let flags: Vec<&str> = own.writes.iter().map(|(flag, ..)| flag.as_str()).collect();
                let any = if flags.is_empty() { "1'b0".to_owned() } else { flags.join(" || ") };
                text.wire(&format!("{name}_w{port}"), 1, &any);
                let users = own.writes.iter().map(|(flag, _, value)| (flag, value));
                text.wire(&format!("{name}_i{port}"), width, &chosen(users, width));
            };
            if storage == 0 {
                // The port that writes, and those that read.
                reads(text, 0, &bank.ports[0]);
                writes(text, 0, &bank.ports[0]);
                let readers = bank.ports.len() - 1;
                for (port, own) in bank.ports.iter().enumerate().skip(1) {
                    reads(text, port, own);
                }
                let all = |letter: &str| {
                    let all = (1..=readers).rev().map(|port| format!("{name}_{letter}{port}"));
                    all.collect::<Vec<_>>().join(", ")
                };
                text.wire(&format!("{name}_addresses"), bits * readers as u32, &format!("{{{}}}", all("a")));
                text.vector(&format!("{name}_now"), width * readers as u32);
                if self.immediate {
                    text.line(&format!("assign {{{}}} = {name}_now;", all("q")));
                } else {
                    text.line(&format!("always_ff @(posedge clk) {{{}}} <= {name}_now;", all("q")));
                }
                ports.push(format!(".read_address({name}_addresses), .out({name}_now)"));
                ports.push(format!(".write_address({name}_a0), .write({name}_w0), .in({name}_i0)"));
                let common = format!("{common}, .READS({readers})");
                text.line(&format!("memory_tables #({common}) u_{name} ({});", ports.join(", ")));
                seen.push(format!("{name}_q1"));
                continue;
            }
            for (port, own) in bank.ports.iter().enumerate() {
                reads(text, port, own);
                writes(text, port, own);
            }
            let common = format!("{common}, .STORAGE({storage})");
            if is_simple {
                ports.push(format!(".read_address({name}_a0), .out({name}_q0)"));
                ports.push(format!(".write_address({name}_a1), .write({name}_w1), .in({name}_i1)"));
                text.line(&format!("memory_simple #({common}) u_{name} ({});", ports.join(", ")));
            } else {
                for port in 0..PORTS {
                    ports.push(format!(".address{port}({name}_a{port}), .write{port}({name}_w{port})"));
                    ports.push(format!(".in{port}({name}_i{port}), .out{port}({name}_q{port})"));
                }
                text.line(&format!("memory_dual #({common}) u_{name} ({});", ports.join(", ")));
            }
            seen.push(format!("{name}_q0"));
        }
        seen
    }
}

/// What the user has given whose flag is set.
fn chosen<'u>(users: impl Iterator<Item = (&'u String, &'u String)>, bits: u32) -> String {
    let users: Vec<_> = users.collect();
    match users.as_slice() {
        [] => format!("{bits}'h0"),
        [(_, only)] => (*only).clone(),
        users => {
            let terms = users.iter().map(|(flag, value)| format!("({{{bits}{{{flag}}}}} & ({value}))"));
            terms.collect::<Vec<_>>().join(" | ")
        }
    }
}
