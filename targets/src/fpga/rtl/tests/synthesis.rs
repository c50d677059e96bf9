//! What Yosys makes of a design.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::{Emitted, library};

/// Numbers of cells by type; `None` if a user has not installed Yosys.
pub fn cells(emitted: &Emitted, folder: &Path) -> Option<BTreeMap<String, u64>> {
    fs::create_dir_all(folder).unwrap();
    let (modules, included) = library();
    modules.iter().chain(&included).for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    fs::write(folder.join("functions.sv"), &emitted.text).unwrap();
    let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    let script = format!(
        "read_verilog -sv -I. {} functions.sv; synth_xilinx -family xcup -flatten -noiopad -top functions; tee -o stat.txt stat",
        names.join(" ")
    );
    let output = match Command::new("yosys").args(["-q", "-p", &script]).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: yosys is not installed ({error}); resources are not compared");
            return None;
        }
        Err(error) => panic!("yosys could not be started: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.join("stat.txt")).unwrap();
    let mut cells = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, count] = words[..]
            && let Ok(count) = count.parse()
        {
            cells.insert(name.to_owned(), count);
        }
    }
    Some(cells)
}
