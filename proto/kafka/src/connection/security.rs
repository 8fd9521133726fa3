//! How a connection to a broker is protected. TLS and SASL belong here.
//!
//! There are two ways to a broker, and both ask this module: the client library for its settings, and the direct
//! fetcher for its socket.

use tokio::net::TcpStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Neither encrypted nor authenticated.
    Plaintext,
}

impl Security {
    /// Settings of the client library.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Security::Plaintext => &[("security.protocol", "plaintext")],
        }
    }

    /// `address`: `host:port`.
    pub(super) async fn open_stream(self, address: &str) -> std::io::Result<TcpStream> {
        match self {
            // This is the gate of the Log seam.
            #[allow(clippy::disallowed_methods)]
            Security::Plaintext => TcpStream::connect(address).await,
        }
    }
}
