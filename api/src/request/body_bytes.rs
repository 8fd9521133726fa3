//! The body of a request: bounded in size and time, and decompressed if it came as gzip.

use std::io::Read;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use flate2::read::MultiGzDecoder;

use crate::problem::{Problem, ProblemKind};

/// The most bytes of a body, as sent and decompressed: a small body must not become a very large one.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a body may take. A client that sends none of it would otherwise hold its connection and its slot for ever.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyBytes(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for BodyBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<BodyBytes, Problem> {
        let is_gzip = is_gzip(request.headers())?;
        let read = tokio::time::timeout(BODY_DEADLINE, Bytes::from_request(request, state)).await;
        let bytes = read.map_err(|_| too_slow())?.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large("the body")
            } else {
                Problem::invalid(rejection.body_text())
            }
        })?;
        Ok(BodyBytes(if is_gzip { decompressed(&bytes)?.into() } else { bytes }))
    }
}

fn too_slow() -> Problem {
    let detail = format!("the body was not there after {} s: send it faster, or split it", BODY_DEADLINE.as_secs());
    Problem::new(ProblemKind::BodyTooSlow, detail)
}

fn too_large(what: &str) -> Problem {
    let detail = format!("{what} exceeds {BODY_BYTES_MAX} bytes: split the request");
    Problem::new(ProblemKind::BodyTooLarge, detail)
}

/// Codings are listed in the order in which they were applied; `identity` changes nothing.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let listed = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let listed: Vec<String> = listed
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding.trim_ascii()).to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    match listed.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(false),
        ["gzip" | "x-gzip"] => Ok(true),
        _ => Err(Problem::new(
            ProblemKind::UnsupportedEncoding,
            "the body has a Content-Encoding that is not decoded here: send it with gzip, or uncompressed",
        )),
    }
}

fn decompressed(gzip: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut bounded = MultiGzDecoder::new(gzip).take(BODY_BYTES_MAX as u64 + 1);
    let read = bounded.read_to_end(&mut bytes);
    read.map_err(|error| Problem::invalid(format!("the body is not gzip, as its Content-Encoding says: {error}")))?;
    if bytes.len() > BODY_BYTES_MAX { Err(too_large("the decompressed body")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::body::Body;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn read(encodings: &[&str], body: Vec<u8>) -> Result<Vec<u8>, u16> {
        let builder = encodings
            .iter()
            .fold(Request::builder(), |request, encoding| request.header(header::CONTENT_ENCODING, *encoding));
        let request = builder.body(Body::from(body)).unwrap();
        let read = BodyBytes::from_request(request, &()).await;
        read.map(|BodyBytes(bytes)| bytes.to_vec()).map_err(|problem| problem.status)
    }

    #[tokio::test]
    async fn gzip_is_decoded_and_any_other_encoding_is_refused() {
        let click = b"{\"ad_id\": 1}".to_vec();
        for encodings in [&["gzip"][..], &["GZIP"], &["x-gzip"], &["identity", "gzip"], &["identity, gzip"]] {
            assert_eq!(read(encodings, gzip(&click)).await, Ok(click.clone()), "{encodings:?}");
        }
        for encodings in [&[][..], &["identity"], &[""]] {
            assert_eq!(read(encodings, click.clone()).await, Ok(click.clone()), "{encodings:?}");
        }
        for encodings in [&["br"][..], &["zstd"], &["deflate"], &["gzip, gzip"], &["gzip", "br"], &["nonsense"]] {
            assert_eq!(read(encodings, gzip(&click)).await, Err(415), "{encodings:?}");
        }
    }

    #[tokio::test]
    async fn a_small_body_does_not_become_a_large_one() {
        assert_eq!(
            read(&["gzip"], gzip(&vec![b' '; BODY_BYTES_MAX])).await.map(|bytes| bytes.len()),
            Ok(BODY_BYTES_MAX)
        );
        assert_eq!(read(&["gzip"], gzip(&vec![b' '; BODY_BYTES_MAX + 1])).await, Err(413));
        assert_eq!(read(&["gzip"], gzip(&vec![b' '; 64 * BODY_BYTES_MAX])).await, Err(413));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_ends_at_the_deadline() {
        let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let request = Request::builder().body(never).unwrap();
        let read = BodyBytes::from_request(request, &()).await;
        assert_eq!(read.map_err(|problem| problem.status), Err(408));
    }

    #[tokio::test]
    async fn damaged_gzip_is_a_bad_request() {
        let whole = gzip(b"{\"ad_id\": 1}");
        for damaged in [b"{}".to_vec(), whole[..whole.len() - 3].to_vec(), Vec::new()] {
            assert_eq!(read(&["gzip"], damaged).await, Err(400));
        }
    }
}
