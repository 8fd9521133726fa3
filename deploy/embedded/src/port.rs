//! Chooses the TCP ports that services remember, or that a parent hands to a child which binds them later.
//!
//! Such a port must survive a moment in which it is not bound. The kernel gives outgoing connections any free port of
//! its ephemeral range at any time, so a port of that range may be taken meanwhile. All ports chosen here are therefore
//! below that range.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::EmbeddedError;

/// Above the ports that common services listen on (8080, 9092, 5432).
const FIRST: u16 = 15_000;
/// The end of the ports chosen here, if the kernel's ephemeral range begins later. Kubernetes gives the ports from here
/// on to node ports.
const END_MAX: u16 = 30_000;
/// The fewest ports to choose from. A kernel whose ephemeral range leaves fewer below it chooses itself.
const PORTS_MIN: u16 = 1_000;
const EPHEMERAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Returns a port of the loopback interface that is free now. This process does not choose it again before it has
/// tried all others.
pub fn choose_free() -> std::io::Result<u16> {
    let Some(ports) = below_ephemeral(std::fs::read_to_string(EPHEMERAL_RANGE).ok().as_deref()) else {
        return Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port());
    };
    // Processes that choose at the same time begin at different places, and each walks on from its own.
    static STEP: AtomicU32 = AtomicU32::new(0);
    let mut candidates = std::iter::repeat_with(|| {
        let step = STEP.fetch_add(1, Ordering::Relaxed);
        nth(&ports, std::process::id(), step)
    });
    let tried = candidates.by_ref().take(ports.len()).find(|&port| is_free(port));
    tried.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::AddrInUse, format!("no port of {ports:?} is free")))
}

/// Whether a service could listen on this port of the loopback interface now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Returns the requested port, else the one used last time if it is free, else a free one. Stores it in `file`, so that
/// clients find a restarted service at the same address.
pub(crate) fn choose(asked: Option<u16>, file: &Path) -> Result<u16, EmbeddedError> {
    let remembered = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let port = match (asked, remembered) {
        (Some(port), _) => port,
        (None, Some(port)) if is_free(port) => port,
        _ => choose_free().map_err(EmbeddedError::io("find a free port for", file))?,
    };
    std::fs::write(file, format!("{port}\n")).map_err(EmbeddedError::io("write", file))?;
    Ok(port)
}

/// The ports to choose from, given the kernel's text for its ephemeral range: two numbers. `None` if that range leaves
/// too few below it.
fn below_ephemeral(kernel_range: Option<&str>) -> Option<Range<u16>> {
    let ephemeral = kernel_range.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let end = ephemeral.unwrap_or(END_MAX).min(END_MAX);
    (end >= FIRST + PORTS_MIN).then_some(FIRST..end)
}

/// The candidate of this process at this step. Steps of one process walk through all ports.
fn nth(ports: &Range<u16>, process: u32, step: u32) -> u16 {
    // Knuth's multiplicative hash: neighbouring process ids begin far apart.
    let begin = process.wrapping_mul(2_654_435_761) >> 8;
    let index = (u64::from(begin) + u64::from(step)) % u64::from(ports.end - ports.start);
    // Below the length of a range of u16.
    ports.start + u16::try_from(index).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_lie_below_the_ephemeral_range_of_the_kernel() {
        assert_eq!(below_ephemeral(Some("32768\t60999\n")), Some(FIRST..END_MAX));
        assert_eq!(below_ephemeral(Some("20000 65535")), Some(FIRST..20_000));
        assert_eq!(below_ephemeral(None), Some(FIRST..END_MAX), "another kernel than Linux");
        assert_eq!(below_ephemeral(Some("1024 65535")), None, "the kernel leaves no room");
    }

    #[test]
    fn one_process_tries_every_port_once_and_two_begin_apart() {
        let ports = FIRST..END_MAX;
        let tried: BTreeSet<u16> = (0..u32::from(END_MAX - FIRST)).map(|step| nth(&ports, 4_711, step)).collect();
        assert_eq!(tried.len(), ports.len());
        assert!(tried.iter().all(|port| ports.contains(port)));
        let begins = |process| nth(&ports, process, 0);
        assert!((4_711..4_800).all(|process| begins(process).abs_diff(begins(process + 1)) > 100));
    }

    #[test]
    fn a_port_is_not_chosen_twice_although_nothing_has_bound_it_yet() {
        let chosen: BTreeSet<u16> = (0..20).map(|_| choose_free().unwrap()).collect();
        assert_eq!(chosen.len(), 20);
    }

    #[test]
    fn a_service_keeps_its_port_while_that_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("port");
        let first = choose(None, &file).unwrap();
        assert_eq!(choose(None, &file).unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(choose(None, &file).unwrap(), first);
    }
}
