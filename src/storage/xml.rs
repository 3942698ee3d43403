//! The XML that storages answer with, read as a stream from untrusted bytes: no DTD, no entities but the five
//! predefined ones, bounded depth, names and texts.

mod list_objects;
mod multistatus;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

pub use list_objects::{ListObjects, parse_error_code, parse_list_objects, read_list_objects};
pub use multistatus::{DavEntry, parse_multistatus, read_multistatus};

/// Elements inside one another; real answers have seven.
const DEPTH_MAX: usize = 32;
/// Bytes of one tag or text; names and tokens are far shorter.
const TOKEN_MAX: usize = 64 * 1024;

/// Why an answer is no XML that we accept.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed, or not UTF-8.
    #[error("the answer is not well-formed XML: {0}")]
    Syntax(Box<quick_xml::Error>),
    /// The stream broke off.
    #[error("the answer broke off: {0}")]
    Read(#[source] io::Error),
    /// A DTD or an entity of its own: nothing that a storage needs.
    #[error("the answer defines or uses entities of its own")]
    Entity,
    /// Deeper, longer or more than allowed.
    #[error("the answer exceeds a limit: {0}")]
    TooMuch(&'static str),
    /// It ends inside an element.
    #[error("the answer ends too early")]
    Unfinished,
    /// Well-formed, but not what was asked for.
    #[error("the answer is not what was asked for: {0}")]
    Unexpected(&'static str),
}

/// One step through a document.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An element begins: namespace, local name.
    Open(String, String),
    /// It ends.
    Close,
    Text(String),
    End,
}

/// Walks through a document element by element.
struct Walker<R> {
    reader: NsReader<Bounded<R>>,
    read: Rc<Cell<usize>>,
    buffer: Vec<u8>,
    depth: usize,
    root_closed: bool,
}

impl<R: BufRead> Walker<R> {
    fn new(input: R) -> Self {
        let read = Rc::new(Cell::new(0));
        let mut reader = NsReader::from_reader(Bounded {
            input,
            read: Rc::clone(&read),
        });
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            read,
            buffer: Vec::new(),
            depth: 0,
            root_closed: false,
        }
    }

    fn next(&mut self) -> Result<Token, XmlError> {
        loop {
            self.buffer.clear();
            self.read.set(0);
            let (namespace, event) = self
                .reader
                .read_resolved_event_into(&mut self.buffer)
                .map_err(syntax)?;
            let token = match event {
                Event::Start(start) => {
                    let namespace = match namespace {
                        ResolveResult::Bound(namespace) => namespace.0.to_owned(),
                        ResolveResult::Unbound => String::new(),
                        ResolveResult::Unknown(_) => {
                            return Err(XmlError::Unexpected("an undeclared namespace"));
                        }
                    };
                    let name: &str = start.local_name().into_inner();
                    Token::Open(namespace, name.to_owned())
                }
                Event::End(_) => Token::Close,
                Event::Text(text) => Token::Text(text.xml10_content().into_owned()),
                Event::CData(text) => Token::Text(text.xml10_content().into_owned()),
                Event::GeneralRef(entity) => Token::Text(resolve(&entity)?.into()),
                Event::DocType(_) => return Err(XmlError::Entity),
                Event::Eof => Token::End,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::Empty(_) => continue,
            };
            return self.count(token);
        }
    }

    fn count(&mut self, token: Token) -> Result<Token, XmlError> {
        match token {
            Token::Open(..) if self.depth >= DEPTH_MAX => {
                return Err(XmlError::TooMuch("elements inside one another"));
            }
            Token::Open(..) if self.root_closed => {
                return Err(XmlError::Unexpected("a second document"));
            }
            Token::Open(..) => self.depth += 1,
            Token::Close => {
                self.depth = self.depth.saturating_sub(1);
                self.root_closed = self.depth == 0;
            }
            Token::End if self.depth > 0 || !self.root_closed => return Err(XmlError::Unfinished),
            Token::Text(_) | Token::End => {}
        }
        Ok(token)
    }
}

fn resolve(entity: &quick_xml::events::BytesRef<'_>) -> Result<char, XmlError> {
    if entity.is_char_ref() {
        let resolved = entity.resolve_char_ref().map_err(syntax)?;
        return resolved.ok_or(XmlError::Entity);
    }
    match &**entity {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(XmlError::Entity),
    }
}

fn syntax(error: quick_xml::Error) -> XmlError {
    match error {
        quick_xml::Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            XmlError::TooMuch("bytes in one tag or text")
        }
        quick_xml::Error::Io(error) => {
            XmlError::Read(io::Error::new(error.kind(), error.to_string()))
        }
        other => XmlError::Syntax(Box::new(other)),
    }
}

/// Stops a single tag or text from filling the memory: the count is reset for each.
struct Bounded<R> {
    input: R,
    read: Rc<Cell<usize>>,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(out.len());
        out[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = TOKEN_MAX.saturating_sub(self.read.get());
        if left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let available = self.input.fill_buf()?;
        Ok(&available[..available.len().min(left)])
    }

    fn consume(&mut self, n: usize) {
        self.read.set(self.read.get().saturating_add(n));
        self.input.consume(n);
    }
}

/// Undoes `%xx`; `None` where it is cut, not hexadecimal or not UTF-8 in the end.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let digit = |b: u8| char::from(b).to_digit(16);
        out.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = tail;
    }
    String::from_utf8(out).ok()
}
