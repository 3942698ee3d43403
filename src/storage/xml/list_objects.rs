//! S3's answers to ListObjectsV2 and its errors. Namespaces are not looked at: servers differ in them.

use std::io::BufRead;

use super::{Token, Walker, XmlError, percent_decode};
use crate::LIST_MAX;

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjects {
    /// Keys and lengths.
    pub objects: Vec<(String, Option<u64>)>,
    /// Common prefixes, each ending in the delimiter.
    pub prefixes: Vec<String>,
    /// How to ask for the next page, where there is one.
    pub next: Option<String>,
}

/// Reads a whole answer that lies in memory.
pub fn parse_list_objects(bytes: &[u8]) -> Result<ListObjects, XmlError> {
    read_list_objects(bytes)
}

#[derive(Default)]
struct Page {
    list: ListObjects,
    url_encoded: bool,
    truncated: bool,
    key: String,
    size: Option<u64>,
}

/// Reads one page as it comes.
pub fn read_list_objects(input: impl BufRead) -> Result<ListObjects, XmlError> {
    let mut walker = Walker::new(input);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut page = Page::default();
    loop {
        match walker.next()? {
            Token::Open(_, name) => {
                if path.is_empty() && name != "ListBucketResult" {
                    return Err(XmlError::Unexpected("it is no listing"));
                }
                text.clear();
                path.push(name);
            }
            Token::Text(part) => push(&mut text, &part)?,
            Token::Close => {
                let names: Vec<&str> = path.iter().skip(1).map(String::as_str).collect();
                page.close(&names, std::mem::take(&mut text))?;
                path.pop();
            }
            Token::End => return page.finish(),
        }
    }
}

fn push(text: &mut String, part: &str) -> Result<(), XmlError> {
    if text.len() + part.len() > super::TOKEN_MAX {
        return Err(XmlError::TooMuch("bytes in one text"));
    }
    text.push_str(part);
    Ok(())
}

impl Page {
    fn close(&mut self, path: &[&str], text: String) -> Result<(), XmlError> {
        match path {
            ["EncodingType"] => self.url_encoded = text.trim() == "url",
            ["IsTruncated"] => self.truncated = text.trim() == "true",
            ["NextContinuationToken"] => self.list.next = Some(text),
            ["Contents", "Key"] => self.key = text,
            ["Contents", "Size"] => self.size = text.trim().parse().ok(),
            ["Contents"] => {
                let object = (std::mem::take(&mut self.key), self.size.take());
                self.list.objects.push(object);
            }
            ["CommonPrefixes", "Prefix"] => self.list.prefixes.push(text),
            _ => {}
        }
        if self.list.objects.len() + self.list.prefixes.len() > LIST_MAX {
            return Err(XmlError::TooMuch("entries"));
        }
        Ok(())
    }

    /// The encoding is told anywhere in the answer, so keys are decoded at its end.
    fn finish(mut self) -> Result<ListObjects, XmlError> {
        if self.url_encoded {
            let keys = self.list.objects.iter_mut().map(|(key, _)| key);
            for key in keys.chain(&mut self.list.prefixes) {
                // The encoding is that of HTML forms: a plus is a space.
                *key = percent_decode(&key.replace('+', " "))
                    .ok_or(XmlError::Unexpected("a key that is not encoded as it says"))?;
            }
        }
        match (self.truncated, &self.list.next) {
            (true, None) => Err(XmlError::Unexpected("a page without a way to the next")),
            (true, Some(_)) => Ok(self.list),
            (false, _) => {
                self.list.next = None;
                Ok(self.list)
            }
        }
    }
}

/// The `Code` of an S3 error, if these bytes are one.
pub fn parse_error_code(bytes: &[u8]) -> Option<String> {
    let mut walker = Walker::new(bytes);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match walker.next().ok()? {
            Token::Open(_, name) => {
                text.clear();
                path.push(name);
            }
            Token::Text(part) => push(&mut text, &part).ok()?,
            Token::Close => {
                if path.len() == 2 && path[0] == "Error" && path[1] == "Code" {
                    return Some(text.trim().to_owned()).filter(|code| !code.is_empty());
                }
                path.pop();
            }
            Token::End => return None,
        }
    }
}
