//! A WebSocket (RFC 6455), as far as a test needs one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// The client's end of one.
pub(crate) struct Stream(pub(crate) BufReader<TcpStream>);

/// Frames' kinds.
pub(crate) const TEXT: u8 = 1;
const CLOSE: u8 = 8;

impl Stream {
    /// Asks for a WebSocket, with lines of headers; the head and what else came where it is refused.
    pub(crate) fn connect(stream: TcpStream, path: &str, headers: &str) -> Result<Self, String> {
        let mut stream = BufReader::new(stream);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = stream.read_line(&mut head).unwrap();
            assert!(read > 0, "closed in the head: {head}");
        }
        if head.starts_with("HTTP/1.1 101 ") {
            let accept = head.to_ascii_lowercase();
            let key = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
            assert!(accept.contains(key), "{head}");
            return Ok(Self(stream));
        }
        let lower = head.to_ascii_lowercase();
        let len = lower.split("content-length: ").nth(1).unwrap();
        let mut body = vec![0; len.split("\r\n").next().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        Err(head + str::from_utf8(&body).unwrap())
    }

    pub(crate) fn send(&mut self, text: &str) {
        let frame = frame(TEXT, text.as_bytes());
        self.0.get_mut().write_all(&frame).unwrap();
    }

    /// The next text; `None` where the server closes instead.
    pub(crate) fn next(&mut self) -> Option<Value> {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).ok()?;
            let mut len = u64::from(head[1]);
            if len >= 126 {
                let mut more = [0; 8];
                let bytes = if len == 126 { 2 } else { 8 };
                self.0.read_exact(&mut more[8 - bytes..]).ok()?;
                len = u64::from_be_bytes(more);
            }
            let mut payload = vec![0; len as usize];
            self.0.read_exact(&mut payload).ok()?;
            match head[0] & 0x0f {
                TEXT => return Some(serde_json::from_slice(&payload).unwrap()),
                CLOSE => return None,
                _ => {}
            }
        }
    }
}

/// A frame as clients send it, masked with zeros.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
