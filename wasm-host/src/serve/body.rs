//! Bodies of requests and answers: read into memory that is wiped, compressed and decompressed
//! within limits, sent in pieces.

mod held;
mod inflow;

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use lethe_server::handler::JSON_BYTES;
use lethe_server::{Problem, Response as Answer};
use zeroize::Zeroizing;

pub(super) use held::{Held, Part, Room};
pub(super) use inflow::Inflow;

/// Largest piece of an answer that is handed to a connection at once.
const PIECE_BYTES: usize = 64 << 10;
/// Answers below this size are sent as they are.
const LEAST_COMPRESSED_BYTES: usize = 1 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// What `content-encoding` says.
    ///
    /// # Errors
    /// 415 for a coding that is not known, or for several.
    pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(None);
        };
        match value.to_str().unwrap_or_default().trim() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "zstd" => Ok(Some(Self::Zstd)),
            other => {
                let detail = format!("content encoding: expected gzip or zstd, found {other:?}");
                Err(Problem::new(415, "LETHE-ENCODING", detail))
            }
        }
    }

    /// The best one that `accept-encoding` takes.
    pub(super) fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
        let takes = |coding: &str| {
            accepted.split(',').any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let named = parts
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case(coding));
                named && !parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
            })
        };
        if takes("zstd") {
            Some(Self::Zstd)
        } else if takes("gzip") {
            Some(Self::Gzip)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses a body. No more than the limit is ever held, however much is promised.
    ///
    /// # Errors
    /// 413 beyond the limit, 400 for what is not of this coding, 503 where there is no room for it.
    pub(super) fn decompress(
        self,
        body: &[u8],
        limit_bytes: u64,
        room: &Room,
    ) -> Result<Held, Problem> {
        let broken = |error: io::Error| {
            let detail = format!("the body is not {}: {error}", self.name());
            Problem::not_understood("LETHE-ENCODING", detail)
        };
        let mut from: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
            Self::Zstd => {
                let mut decoder = zstd::stream::Decoder::new(body).map_err(broken)?;
                // A frame may ask for a window of any size; this is what zstd's own tool allows.
                decoder.window_log_max(27).map_err(broken)?;
                Box::new(decoder)
            }
        };
        let mut whole = room.hold(0)?;
        let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
        loop {
            let len = from.read(&mut piece).map_err(broken)?;
            if len == 0 {
                return Ok(whole);
            }
            if (whole.len() + len) as u64 > limit_bytes {
                return Err(Problem::too_large((whole.len() + len) as u64, limit_bytes));
            }
            whole.append(&piece[..len])?;
        }
    }

    fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(body, 1),
        }
    }
}

/// Reads a body into memory that is zeroized.
///
/// # Errors
/// 413 beyond the limit, 400 where the client breaks off, 503 where there is no room for it.
pub(super) async fn read(mut body: Body, limit_bytes: u64, room: &Room) -> Result<Held, Problem> {
    let announced = body.size_hint().lower();
    if announced > limit_bytes {
        return Err(Problem::too_large(announced, limit_bytes));
    }
    // What is announced is believed piece by piece: a client may announce much and send nothing.
    let mut read = room.hold((announced as usize).min(1 << 20))?;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Some(frame) = frame.await else {
            return Ok(read);
        };
        let broken = |_| Problem::not_understood("LETHE-BODY", "the body could not be read");
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if (read.len() + data.len()) as u64 > limit_bytes {
            return Err(Problem::too_large(
                (read.len() + data.len()) as u64,
                limit_bytes,
            ));
        }
        read.append(&data)?;
    }
}

/// An answer as HTTP, compressed where that is asked for and pays, its body in pieces whose memory
/// is zeroized when the last one is sent.
pub(super) fn http(answer: Answer, coding: Option<Coding>) -> Response {
    let coding = coding.filter(|_| answer.body.len() >= LEAST_COMPRESSED_BYTES);
    let compressed = coding.and_then(|coding| {
        // What cannot be compressed is sent as it is.
        let body = coding.compress(&answer.body).ok()?;
        Some((coding, lethe_sandbox::wiped_bytes(Zeroizing::new(body))))
    });
    let (coding, bytes) = match compressed {
        Some((coding, body)) => (Some(coding), body),
        None => (None, answer.body),
    };
    let len = bytes.len();
    let body = match len <= PIECE_BYTES {
        true => Body::from(bytes),
        false => Body::new(Pieces(bytes)),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_str(&answer.content_type);
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, len.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(bytes) = answer.json_bytes {
        headers.insert(JSON_BYTES, bytes.into());
    }
    if let Some(coding) = coding {
        headers.insert(
            header::CONTENT_ENCODING,
            HeaderValue::from_static(coding.name()),
        );
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// A body in pieces.
struct Pieces(Bytes);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let len = self.0.len().min(PIECE_BYTES);
        let piece = self.0.split_to(len);
        Poll::Ready((len > 0).then(|| Ok(http_body::Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_round_trip_and_bombs_are_refused() {
        let plain = b"Lethe, the river of forgetting. ".repeat(10_000);
        let room = Room::new(1 << 30);
        for coding in [Coding::Gzip, Coding::Zstd] {
            let packed = coding.compress(&plain).unwrap();
            let whole = coding.decompress(&packed, plain.len() as u64, &room);
            assert!(whole.unwrap()[..] == plain);
            let bomb = coding
                .decompress(&packed, plain.len() as u64 - 1, &room)
                .unwrap_err();
            assert_eq!((bomb.status, &*bomb.code), (413, "LETHE-BODY-SIZE"));
            for bad in [&packed[..packed.len() / 2], b"neither"] {
                let error = coding.decompress(bad, 1 << 20, &room).unwrap_err();
                assert_eq!((error.status, &*error.code), (400, "LETHE-ENCODING"));
            }
        }
    }

    #[test]
    fn the_coding_is_what_the_client_takes() {
        let cases = [
            ("gzip, zstd", Some(Coding::Zstd)),
            ("gzip;q=0.5", Some(Coding::Gzip)),
            ("zstd;q=0, GZIP", Some(Coding::Gzip)),
            ("br", None),
            ("", None),
        ];
        for (accepted, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(accepted).unwrap(),
            );
            assert_eq!(Coding::of_answer(&headers), expected, "{accepted}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(Coding::of_request(&headers).unwrap_err().status, 415);
    }
}
