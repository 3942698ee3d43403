//! WebDAV's multi-status answers (RFC 4918, section 13) with the properties that we ask for, and those of
//! RFC 4331 (quota).

use std::io::BufRead;

use super::{Token, Walker, XmlError};

const DAV: &str = "DAV:";

/// A resource as a PROPFIND shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DavEntry {
    /// Its address as the server wrote it: absolute or a path, percent-encoded.
    pub href: String,
    /// Whether it is a collection.
    pub collection: bool,
    /// Its length, where told.
    pub len: Option<u64>,
    /// `quota-available-bytes`, where told and not negative (Nextcloud's "unlimited").
    pub available: Option<u64>,
    /// `quota-used-bytes`, where told.
    pub used: Option<u64>,
}

/// Reads a whole answer that lies in memory.
pub fn parse_multistatus(bytes: &[u8]) -> Result<Vec<DavEntry>, XmlError> {
    let mut entries = Vec::new();
    read_multistatus(bytes, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

/// Reads an answer as it comes and hands on each resource that is there; those with an error of their own are left out.
pub fn read_multistatus(
    input: impl BufRead,
    found: &mut dyn FnMut(DavEntry) -> Result<(), XmlError>,
) -> Result<(), XmlError> {
    let mut walker = Walker::new(input);
    let mut state = State::default();
    let mut seen = false;
    loop {
        match walker.next()? {
            Token::Open(namespace, name) => {
                let tag = Tag::of(&namespace, &name);
                if !seen && tag != Tag::Multistatus {
                    return Err(XmlError::Unexpected("it is no multi-status"));
                }
                seen = true;
                state.open(tag);
            }
            Token::Text(text) => state.text(&text)?,
            Token::Close => {
                if let Some(entry) = state.close() {
                    found(entry)?;
                }
            }
            Token::End => return Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Multistatus,
    Response,
    Href,
    Status,
    Propstat,
    Prop,
    ResourceType,
    Collection,
    Length,
    Available,
    Used,
    Other,
}

impl Tag {
    fn of(namespace: &str, name: &str) -> Self {
        if namespace != DAV {
            return Self::Other;
        }
        match name {
            "multistatus" => Self::Multistatus,
            "response" => Self::Response,
            "href" => Self::Href,
            "status" => Self::Status,
            "propstat" => Self::Propstat,
            "prop" => Self::Prop,
            "resourcetype" => Self::ResourceType,
            "collection" => Self::Collection,
            "getcontentlength" => Self::Length,
            "quota-available-bytes" => Self::Available,
            "quota-used-bytes" => Self::Used,
            _ => Self::Other,
        }
    }
}

/// What has been read of the response and the propstat that are open.
#[derive(Default)]
struct State {
    path: Vec<Tag>,
    text: String,
    entry: DavEntry,
    /// The response as a whole failed.
    failed: bool,
    props: DavEntry,
    props_failed: bool,
}

impl State {
    fn open(&mut self, tag: Tag) {
        self.text.clear();
        self.path.push(tag);
        match self.path[..] {
            [Tag::Multistatus, Tag::Response] => {
                self.entry = DavEntry::default();
                self.failed = false;
            }
            [Tag::Multistatus, Tag::Response, Tag::Propstat] => {
                self.props = DavEntry::default();
                self.props_failed = false;
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        if self.text.len() + text.len() > super::TOKEN_MAX {
            return Err(XmlError::TooMuch("bytes in one text"));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn close(&mut self) -> Option<DavEntry> {
        use Tag::{
            Available, Collection, Href, Length, Multistatus, Prop, Propstat, ResourceType,
            Response, Status, Used,
        };
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        let mut done = None;
        if let [Multistatus, Response, inner @ ..] = &self.path[..] {
            match inner {
                [Href] if self.entry.href.is_empty() => self.entry.href = text.to_owned(),
                [Status] => self.failed = !is_success(text),
                [Propstat, Status] => self.props_failed = !is_success(text),
                [Propstat, Prop, ResourceType, Collection] => self.props.collection = true,
                [Propstat, Prop, Length] => self.props.len = text.parse().ok(),
                [Propstat, Prop, Available] => self.props.available = text.parse().ok(),
                [Propstat, Prop, Used] => self.props.used = text.parse().ok(),
                [Propstat] if !self.props_failed => self.keep_props(),
                [] if !self.failed && !self.entry.href.is_empty() => {
                    done = Some(std::mem::take(&mut self.entry));
                }
                _ => {}
            }
        }
        self.path.pop();
        done
    }

    fn keep_props(&mut self) {
        let (entry, props) = (&mut self.entry, &self.props);
        entry.collection |= props.collection;
        entry.len = props.len.or(entry.len);
        entry.available = props.available.or(entry.available);
        entry.used = props.used.or(entry.used);
    }
}

/// A status line such as `HTTP/1.1 200 OK`.
fn is_success(line: &str) -> bool {
    let code = line.split_ascii_whitespace().nth(1);
    code.is_some_and(|code| code.len() == 3 && code.starts_with('2'))
}
