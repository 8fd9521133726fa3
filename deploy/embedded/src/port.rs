//! Chooses a service's port: the requested one, else the one it had last time, else a free one.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::error::EmbeddedError;

/// Stores the port in `file`, so that clients find a restarted service at the same address.
pub(crate) fn choose(asked: Option<u16>, file: &Path) -> Result<u16, EmbeddedError> {
    let remembered = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let port = match (asked, remembered) {
        (Some(port), _) => port,
        (None, Some(port)) if is_free(port) => port,
        _ => free().map_err(EmbeddedError::io("find a free port for", file))?,
    };
    std::fs::write(file, format!("{port}\n")).map_err(EmbeddedError::io("write", file))?;
    Ok(port)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
