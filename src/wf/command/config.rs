//! `wf config`: the configuration in force, and where each value came from.

use std::fmt::Write;

use wf_schema::config::Row;

use super::{Failure, loader, print};
use crate::cli::{ConfigCommand, Global, Output};
use crate::exit::Exit;

pub(super) fn config(global: &Global, command: Option<ConfigCommand>) -> Result<Exit, Failure> {
    let loaded = loader(global).load()?;
    for warning in &loaded.warnings {
        let _unheard = std::io::Write::write_all(&mut std::io::stderr(), format!("warning: {warning}\n").as_bytes());
    }
    let rows: Vec<&Row> = match command.unwrap_or(ConfigCommand::Show) {
        ConfigCommand::Show => loaded.rows().iter().collect(),
        ConfigCommand::Diff => loaded.diff().collect(),
        ConfigCommand::Check => return Ok(Exit::Done),
    };
    match global.output {
        Output::Json => {
            let json = serde_json::to_string_pretty(&rows).map_err(|error| Failure::failed(error, Exit::Failed))?;
            print(&format!("{json}\n"))
        }
        Output::Table => print(&table(&rows)),
    }
}

fn table(rows: &[&Row]) -> String {
    let width =
        |column: fn(&Row) -> usize, title: &str| rows.iter().map(|row| column(row)).chain([title.len()]).max().unwrap_or(0);
    let (keys, values) = (width(|row| row.key.chars().count(), "KEY"), width(|row| row.value.chars().count().min(40), "VALUE"));
    let mut table = format!("{:<keys$}  {:<values$}  FROM\n", "KEY", "VALUE");
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{:<keys$}  {:<values$}  {}", row.key, row.value, row.origin);
    }
    table
}
