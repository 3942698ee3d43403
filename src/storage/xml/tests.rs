use proptest::prelude::*;

use super::*;

const APACHE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/">
<D:href>/dav/slots/</D:href><D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><D:getcontentlength/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
<D:response xmlns:lp1="DAV:"><D:href>/dav/slots/a%26b</D:href><D:propstat><D:prop><lp1:resourcetype/>
<lp1:getcontentlength>1024</lp1:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>"#;

const NEXTCLOUD: &str = r#"<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns"
xmlns:oc="http://owncloud.org/ns"><d:response><d:href>https://cloud.example/remote.php/dav/files/a%20b/</d:href><d:propstat><d:prop>
<d:quota-available-bytes>-3</d:quota-available-bytes><d:quota-used-bytes>77</d:quota-used-bytes></d:prop>
<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
<d:response><d:href>/gone</d:href><d:status>HTTP/1.1 404 Not Found</d:status></d:response></d:multistatus>"#;

const S3: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>v%2F</Prefix>
<Contents><Key>v/x%2By+z</Key><LastModified>2026-11-21T00:00:00Z</LastModified><Size>12</Size>
<Owner><ID>Key</ID></Owner></Contents><CommonPrefixes><Prefix>v/slots/</Prefix></CommonPrefixes>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<NextContinuationToken>1/a&amp;b==</NextContinuationToken></ListBucketResult>"#;

#[test]
fn what_apache_answers_is_understood() {
    let entries = parse_multistatus(APACHE.as_bytes()).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].collection && entries[0].len.is_none());
    assert_eq!(entries[0].href, "/dav/slots/");
    assert_eq!(entries[1].href, "/dav/slots/a%26b");
    assert_eq!(entries[1].len, Some(1024));
    assert!(!entries[1].collection);
}

#[test]
fn an_unlimited_quota_is_unknown_and_failed_responses_are_left_out() {
    let entries = parse_multistatus(NEXTCLOUD.as_bytes()).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].available, None);
    assert_eq!(entries[0].used, Some(77));
}

#[test]
fn elements_of_other_namespaces_are_not_taken_for_ours() {
    let xml = r#"<multistatus xmlns="DAV:" xmlns:x="urn:x"><response><x:href>/evil</x:href><href>/good</href>
        <propstat><prop><x:getcontentlength>1</x:getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat>
        </response></multistatus>"#;
    let entries = parse_multistatus(xml.as_bytes()).unwrap();
    assert_eq!(
        entries,
        [DavEntry {
            href: "/good".into(),
            ..DavEntry::default()
        }]
    );
    assert!(parse_multistatus(b"<multistatus/>").is_err());
}

#[test]
fn a_page_of_s3_is_understood() {
    let page = parse_list_objects(S3.as_bytes()).unwrap();
    assert_eq!(page.objects, [("v/x+y z".to_owned(), Some(12))]);
    assert_eq!(page.prefixes, ["v/slots/"]);
    assert_eq!(page.next.as_deref(), Some("1/a&b=="));
}

#[test]
fn a_truncated_page_without_a_token_is_refused_and_an_untruncated_one_ends() {
    let page = S3.replace(
        "<NextContinuationToken>1/a&amp;b==</NextContinuationToken>",
        "",
    );
    assert!(parse_list_objects(page.as_bytes()).is_err());
    let page = S3.replace(">true<", ">false<");
    assert_eq!(parse_list_objects(page.as_bytes()).unwrap().next, None);
}

#[test]
fn error_codes_are_found_and_nothing_else() {
    let xml = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>x</Message></Error>";
    assert_eq!(parse_error_code(xml).as_deref(), Some("NoSuchKey"));
    for other in [
        &b"<html><body>404</body>"[..],
        b"",
        b"not found",
        b"<a><Error><Code>x</Code></Error></a>",
    ] {
        assert_eq!(parse_error_code(other), None);
    }
}

#[test]
fn entities_document_types_and_bombs_are_refused() {
    let bomb = r#"<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><D:multistatus xmlns:D="DAV:">&b;</D:multistatus>"#;
    assert!(matches!(
        parse_multistatus(bomb.as_bytes()),
        Err(XmlError::Entity)
    ));
    let foreign = r#"<D:multistatus xmlns:D="DAV:">&bomb;</D:multistatus>"#;
    assert!(matches!(
        parse_multistatus(foreign.as_bytes()),
        Err(XmlError::Entity)
    ));
    let deep = "<a>".repeat(100);
    let deep = format!(r#"<D:multistatus xmlns:D="DAV:">{deep}"#);
    assert!(matches!(
        parse_multistatus(deep.as_bytes()),
        Err(XmlError::TooMuch(_))
    ));
    for long in [
        format!("<{}/>", "a".repeat(TOKEN_MAX)),
        "a".repeat(2 * TOKEN_MAX),
        "&#65;".repeat(2 * TOKEN_MAX),
    ] {
        let long = format!(r#"<D:multistatus xmlns:D="DAV:">{long}</D:multistatus>"#);
        assert!(matches!(
            parse_multistatus(long.as_bytes()),
            Err(XmlError::TooMuch(_))
        ));
    }
}

#[test]
fn an_answer_that_is_cut_anywhere_is_refused() {
    for cut in 0..APACHE.len() - 1 {
        assert!(
            parse_multistatus(&APACHE.as_bytes()[..cut]).is_err(),
            "{cut}"
        );
    }
    for cut in 0..S3.len() - 1 {
        assert!(parse_list_objects(&S3.as_bytes()[..cut]).is_err(), "{cut}");
    }
    for nothing in ["", " ", "plain text"] {
        assert!(parse_multistatus(nothing.as_bytes()).is_err());
    }
}

#[test]
fn a_hundred_thousand_entries_are_read() {
    let mut xml = String::from(r#"<D:multistatus xmlns:D="DAV:">"#);
    for i in 0..100_000 {
        xml += &format!(
            "<D:response><D:href>/v/pages/{i:032x}</D:href><D:propstat><D:prop><D:resourcetype/>\
             <D:getcontentlength>{i}</D:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status>\
             </D:propstat></D:response>"
        );
    }
    xml += "</D:multistatus>";
    let entries = parse_multistatus(xml.as_bytes()).unwrap();
    assert_eq!(entries.len(), 100_000);
    assert_eq!(entries[99_999].len, Some(99_999));
}

#[test]
fn percent_decoding_is_total() {
    assert_eq!(percent_decode("a%2Fb%c3%A4").as_deref(), Some("a/bä"));
    for bad in ["%", "%2", "%zz", "%ff", "a%-1"] {
        assert_eq!(percent_decode(bad), None, "{bad}");
    }
}

/// A real answer with pieces cut out, doubled and replaced.
fn mutated(original: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let len = original.len();
    let edit = (0..len, 0..64usize, prop::collection::vec(any::<u8>(), 0..8));
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut bytes = original.as_bytes().to_vec();
        for (at, cut, insert) in edits {
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, insert);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn mutated_answers_never_panic(a in mutated(APACHE), n in mutated(NEXTCLOUD), s in mutated(S3)) {
        let _ = parse_multistatus(&a);
        let _ = parse_multistatus(&n);
        let _ = parse_list_objects(&s);
        let _ = parse_error_code(&s);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_multistatus(&bytes);
        let _ = parse_list_objects(&bytes);
        let _ = parse_error_code(&bytes);
    }
}
