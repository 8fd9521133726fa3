//! Prints a verb's result: one JSON line, or a table of its fields.

use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;

use super::{Output, say};

/// Prints one JSON line, or a table of the fields. A list becomes a separate table.
pub(super) fn show(result: &impl Serialize, output: Output) -> anyhow::Result<()> {
    let value = serde_json::to_value(result)?;
    if output == Output::Json {
        say(&value.to_string());
        return Ok(());
    }
    let mut fields = Table::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_array().filter(|rows| rows.iter().any(Value::is_object)) {
            Some(rows) => say(&format!("{name}\n{}", table_of(rows))),
            None => {
                fields.add_row([name.clone(), plain(value)]);
            }
        }
    }
    say(&fields.to_string());
    Ok(())
}

fn table_of(rows: &[Value]) -> Table {
    let mut table = Table::new();
    if let Some(first) = rows.first().and_then(Value::as_object) {
        table.set_header(first.keys());
    }
    for row in rows.iter().filter_map(Value::as_object) {
        table.add_row(row.values().map(plain));
    }
    table
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
