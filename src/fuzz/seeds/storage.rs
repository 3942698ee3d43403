//! Answers as real servers give them, and addresses.

fn all<const N: usize>(texts: [&str; N]) -> Vec<Vec<u8>> {
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// For `targets::storage::multistatus`.
pub fn multistatus() -> Vec<Vec<u8>> {
    all([
        r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:"><D:href>/dav/slots/</D:href><D:propstat><D:prop>
<lp1:resourcetype><D:collection/></lp1:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<D:response><D:href>/dav/slots/0a%20b</D:href><D:propstat><D:prop><lp1:getcontentlength xmlns:lp1="DAV:">1024</lp1:getcontentlength>
<D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:quota-used-bytes/></D:prop>
<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response></D:multistatus>"#,
        r#"<d:multistatus xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"><d:response><d:href>/&amp;&#x41;<![CDATA[x]]></d:href><d:propstat>
<d:prop><d:quota-available-bytes>-3</d:quota-available-bytes><d:quota-used-bytes>7</d:quota-used-bytes></d:prop>
<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"#,
        r#"<!DOCTYPE x [<!ENTITY a "b">]><multistatus xmlns="DAV:">&a;</multistatus>"#,
    ])
}

/// For `targets::storage::list_objects`.
pub fn list_objects() -> Vec<Vec<u8>> {
    all([
        r#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>abc%2F</NextContinuationToken><Contents><Key>slots/0a%2Bb+c</Key><Size>1024</Size>
</Contents><CommonPrefixes><Prefix>rooms%2Fx/</Prefix></CommonPrefixes></ListBucketResult>"#,
        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
        "<Error><Code>NoSuchBucket</Code></Error>",
    ])
}

/// For `targets::storage::error_document`.
pub fn error_documents() -> Vec<Vec<u8>> {
    all([
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&amp;b</Key><RequestId>7</RequestId></Error>"#,
        r#"<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Message>x</Message><Code> SlowDown
</Code></Error>"#,
        "<Error><Code><![CDATA[AccessDenied]]></Code></Error>",
        "<html><body><h1>502 Bad Gateway</h1></body></html>",
        "<Error><Code></Code><Code>Second</Code></Error>",
    ])
}

/// For `targets::storage::address`.
pub fn addresses() -> Vec<Vec<u8>> {
    all([
        "/srv/vault",
        "file:///a%20b",
        "webdavs://anna@h.example:8443/dav/my%20vault",
        "webdav://anna:secret@[::1]/x",
        "s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu&style=virtual",
        "https://h/x",
    ])
}

/// For `targets::storage::challenges`: first three that are answered.
pub fn challenges() -> Vec<Vec<u8>> {
    all([
        "Digest realm=\"r, s\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"",
        "basic realm=\"x\"",
        "Negotiate\nBasic realm=\"a \\\" b\", digest realm=\"r\", nonce=\"n\", algorithm=SHA-256-sess, qop=\"auth,auth-int\", opaque=\"o\", stale=true, userhash=true, charset=UTF-8",
        "Negotiate, Bearer realm=x",
        "Digest realm=\"r\"",
    ])
}
