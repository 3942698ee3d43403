//! Counts HTTP/1 requests in the bytes that a client sends, without taking part in the conversation.

/// Longer lines than this are no HTTP that we know.
const LINE_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
enum State {
    /// Between requests, or within a request line.
    #[default]
    RequestLine,
    Headers,
    Body(u64),
    ChunkSize,
    /// Data of a chunk and the line end behind it.
    ChunkData(u64),
    Trailers,
    /// Not HTTP, or HTTP that changed its protocol: nothing more is counted on this connection.
    Opaque,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct RequestCounter {
    state: State,
    line: Vec<u8>,
    body: Body,
}

#[derive(Debug, Default)]
struct Body {
    length: u64,
    chunked: bool,
}

impl RequestCounter {
    /// Takes the next bytes and calls `found` with the method of each request line in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(&str)) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Opaque => return,
                State::Body(left) | State::ChunkData(left) => self.skip(left, bytes),
                _ => self.take_line(bytes, &mut found),
            };
        }
    }

    /// Passes over contents, whatever they look like.
    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let n = left.min(bytes.len() as u64);
        let rest = left - n;
        self.state = match (&self.state, rest) {
            (State::Body(_), 0) => State::RequestLine,
            (State::Body(_), _) => State::Body(rest),
            (_, 0) => State::ChunkSize,
            _ => State::ChunkData(rest),
        };
        bytes.get(n as usize..).unwrap_or_default()
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(&str)) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > LINE_MAX {
                self.state = State::Opaque;
            }
            return &[];
        };
        let (head, rest) = bytes.split_at(end + 1);
        self.line.extend_from_slice(head);
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.end_line(text.trim_end(), found);
        rest
    }

    fn end_line(&mut self, line: &str, found: &mut impl FnMut(&str)) {
        self.state = match (&self.state, line) {
            (State::RequestLine, "") => State::RequestLine, // RFC 9112, section 2.2
            (State::RequestLine, line) => match method(line) {
                Some(method) => {
                    found(method);
                    self.body = Body::default();
                    State::Headers
                }
                None => State::Opaque,
            },
            (State::Headers, "") => match self.body {
                Body { chunked: true, .. } => State::ChunkSize,
                Body { length: 0, .. } => State::RequestLine,
                Body { length, .. } => State::Body(length),
            },
            (State::Headers, line) => self.header(line),
            (State::ChunkSize, line) => chunk(line),
            (_, "") => State::RequestLine,
            _ => State::Trailers,
        };
    }

    fn header(&mut self, line: &str) -> State {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            match value.trim().parse() {
                Ok(length) => self.body.length = length,
                Err(_) => return State::Opaque,
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.body.chunked = value.to_ascii_lowercase().contains("chunked");
        }
        State::Headers
    }
}

fn method(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    let (method, _target, version) = (words.next()?, words.next()?, words.next()?);
    let known = version.starts_with("HTTP/1.") && words.next().is_none();
    let upper = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    (known && upper).then_some(method)
}

fn chunk(line: &str) -> State {
    let size = line.split(';').next().unwrap_or("").trim();
    match u64::from_str_radix(size, 16) {
        Ok(0) => State::Trailers,
        Ok(size) => State::ChunkData(size.saturating_add(2)),
        Err(_) => State::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds in pieces of `step` bytes.
    fn methods(stream: &[u8], step: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let mut counter = RequestCounter::default();
        for piece in stream.chunks(step) {
            counter.feed(piece, |m| seen.push(m.to_owned()));
        }
        seen
    }

    #[test]
    fn requests_with_and_without_bodies_are_counted_however_they_are_cut() {
        let stream = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n\
            GET /not-a-request HTTP/1.1\r\n\n\
            PROPFIND /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n10;x=y\r\nGET / HTTP/1.1\r\n\r\n0\r\nT: 1\r\n\r\n\
            GET /c HTTP/1.1\r\n\r\n";
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(methods(stream, step), ["PUT", "PROPFIND", "GET"], "{step}");
        }
    }

    #[test]
    fn what_is_not_http_counts_nothing() {
        assert!(methods(b"\x16\x03\x01\x02\x00\x01\nGET / HTTP/1.1\r\n\r\n", 5).is_empty());
        assert!(methods(&vec![b'A'; 3 * LINE_MAX], 4096).is_empty());
    }

    #[test]
    fn a_bad_length_ends_the_counting_rather_than_guessing() {
        let stream = b"PUT / HTTP/1.1\r\nContent-Length: many\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(methods(stream, 1000), ["PUT"]);
    }
}
