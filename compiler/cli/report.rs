//! `tcc report`.

use tcc::Artifact;

use super::arguments::{ReportArguments, ReportFormat};
use super::failure::{Exit, Failure};
use super::{print, print_json, report_page};

/// Shows the report of a build.
pub fn run(arguments: &ReportArguments) -> Result<Exit, Failure> {
    let report = Artifact::open(&arguments.build)?.report()?;
    match arguments.format {
        ReportFormat::Text => print(&report_page::page(&report).to_text()),
        ReportFormat::Json => print_json(&report),
        ReportFormat::Html => print(&report_page::page(&report).to_html()),
    }
}
