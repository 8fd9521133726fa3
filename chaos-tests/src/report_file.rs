//! Reports for programs: pretty JSON in a file.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Writes the report, and creates its folder.
pub(crate) fn write_json(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(report)?;
        text.push('\n');
        Ok(std::fs::write(path, text)?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
