//! Bodies of answers: bounded in bytes and in time before they are believed.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Http;
use crate::memory::{too_long, too_short};
use crate::xml::XmlError;
use crate::{ErrorKind, StoreError};

/// Bytes that are read and thrown away for a server that ignores ranges; the longest segment.
const SKIP_MAX: u64 = skrin_base::limits::SEGMENT_MAX as u64;
/// Bytes of an error's body that are read to find its code.
const ERROR_BODY_MAX: usize = 16 * 1024;
/// Bytes of all listings; two million entries with long addresses.
pub(crate) const LISTING_BODY_MAX: u64 = 2 << 30;

/// The body of an answer as it comes in.
pub(crate) struct Body<'a> {
    http: &'a Http,
    response: Response,
    begun: Instant,
    deadline: Instant,
    received: u64,
    object: String,
}

impl<'a> Body<'a> {
    /// `len` is how much may reasonably come; it only sets the last deadline.
    pub(crate) fn new(http: &'a Http, response: Response, len: u64, object: &str) -> Self {
        Self {
            begun: Instant::now(),
            deadline: http.times.deadline(len),
            received: 0,
            http,
            response,
            object: object.to_owned(),
        }
    }

    fn error(&self, kind: ErrorKind, what: &str) -> StoreError {
        self.http.error(kind, what, &self.object)
    }

    /// The next piece. Who sends little may take little time: a byte now and then does not hold a request for as long as the
    /// longest object would take.
    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let stall = Instant::now() + self.http.times.stall;
        let due = self.begun + self.http.times.allowed(self.received);
        let until = stall.min(due).min(self.deadline);
        match timeout_at(until, self.response.chunk()).await {
            Ok(Ok(chunk)) => {
                self.received += chunk.as_ref().map_or(0, Bytes::len) as u64;
                Ok(chunk)
            }
            Ok(Err(error)) => Err(self.http.transport(error, &self.object)),
            Err(_) => Err(self.error(ErrorKind::Transient, "the answer came too slowly")),
        }
    }

    /// The length that the server announced.
    fn announced(&self) -> Option<u64> {
        let value = self.response.headers().get(CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// All of it, refused above `max` bytes.
    pub(crate) async fn whole(mut self, max: usize) -> Result<Bytes, StoreError> {
        let refuse = |len, body: &Self| {
            Err(too_long(len, max)
                .object(&body.object)
                .place(&body.http.place))
        };
        let announced = self.announced();
        if let Some(len) = announced
            && len > max as u64
        {
            return refuse(len, &self);
        }
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(8 << 20) as usize);
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > max {
                return refuse((bytes.len() + chunk.len()) as u64, &self);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The `len` bytes from `start` of the object on, whether the server understood ranges or not.
    pub(crate) async fn range(self, start: u64, len: usize) -> Result<Bytes, StoreError> {
        let told = self.response.headers().get(CONTENT_RANGE).cloned();
        let Some(told) = told else {
            if self.response.status() == reqwest::StatusCode::PARTIAL_CONTENT {
                return Err(self.error(ErrorKind::Broken, "the server sent a part and no range"));
            }
            return self.skip_and_take(start, len).await;
        };
        let told = told.to_str().ok().and_then(content_range);
        match told {
            Some((first, last)) if first == start && last < start + len as u64 - 1 => {
                Err(self.short(start, len))
            }
            Some((first, last)) if first == start && last == start + len as u64 - 1 => {
                self.exactly(start, len).await
            }
            _ => Err(self.error(
                ErrorKind::Broken,
                "the server sent another range than it was asked for",
            )),
        }
    }

    fn short(&self, start: u64, len: usize) -> StoreError {
        too_short(start, len)
            .object(&self.object)
            .place(&self.http.place)
    }

    async fn exactly(mut self, start: u64, len: usize) -> Result<Bytes, StoreError> {
        let mut bytes = BytesMut::with_capacity(len);
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > len {
                return Err(self.error(
                    ErrorKind::Broken,
                    "the server sent more than the range it was asked for",
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() < len {
            return Err(self.short(start, len));
        }
        Ok(bytes.freeze())
    }

    async fn skip_and_take(mut self, start: u64, len: usize) -> Result<Bytes, StoreError> {
        if start > SKIP_MAX {
            return Err(self.error(
                ErrorKind::Unsupported,
                "the server ignores ranges, and this one lies too far in",
            ));
        }
        if self.announced().is_some_and(|all| all < start + len as u64) {
            return Err(self.short(start, len));
        }
        let mut skip = start as usize;
        let mut bytes = BytesMut::with_capacity(len);
        while bytes.len() < len {
            let Some(mut chunk) = self.chunk().await? else {
                return Err(self.short(start, len));
            };
            let skipped = skip.min(chunk.len());
            chunk.advance(skipped);
            skip -= skipped;
            chunk.truncate(len - bytes.len());
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The beginning of an error's body; an empty one if it cannot be read.
    pub(crate) async fn snippet(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = ERROR_BODY_MAX - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if bytes.len() == ERROR_BODY_MAX {
                break;
            }
        }
        bytes
    }

    /// Feeds the body to a parser that runs in a thread of its own, so that no listing lies in memory as XML. Refused above
    /// `max` bytes.
    pub(crate) async fn parse<T: Send + 'static>(
        mut self,
        max: u64,
        parser: impl FnOnce(Pipe) -> Result<T, XmlError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (send, receive) = mpsc::channel(4);
        let parsing = tokio::task::spawn_blocking(move || {
            parser(Pipe {
                receive,
                chunk: Bytes::new(),
            })
        });
        let mut total = 0;
        let fed = loop {
            let chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(error) => {
                    let _ = send.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                    break Err(error);
                }
            };
            total += chunk.len() as u64;
            if total > max {
                let _ = send.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                break Err(self.error(ErrorKind::Broken, "the listing has no end"));
            }
            if send.send(Ok(chunk)).await.is_err() {
                break Ok(()); // The parser gave up and says why.
            }
        };
        drop(send);
        let parsed = parsing.await;
        fed?;
        match parsed {
            Ok(Ok(parsed)) => Ok(parsed),
            Ok(Err(error)) => Err(self
                .error(ErrorKind::Broken, &error.to_string())
                .caused_by(error)),
            Err(error) => Err(self
                .error(ErrorKind::Transient, "the program is ending")
                .caused_by(error)),
        }
    }
}

/// First and last position of `bytes 0-9/10`.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, _total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

/// The reading end of a body, for a parser that blocks.
pub(crate) struct Pipe {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, n: usize) {
        self.chunk.advance(n.min(self.chunk.len()));
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.len().min(out.len());
        out[..n].copy_from_slice(&self.chunk[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9)));
        assert_eq!(content_range("bytes 5-5/*"), Some((5, 5)));
        for bad in [
            "bytes */10",
            "bytes 9-0/10",
            "0-9/10",
            "bytes 0-9",
            "bytes -1-9/10",
            "bytes 0-99999999999999999999/1",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
