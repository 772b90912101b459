//! Reads the fields of a `multipart/form-data` body (RFC 7578), for vendors whose documents want one.
//!
//! Texts only, and strictly: what is not well-formed has no fields, so that nothing is signed by accident.

use crate::vendor::Request;

/// The fields in their order; `None` where the body is no such form.
pub(super) fn fields(request: &Request) -> Option<Vec<(String, String)>> {
    let kind = request.header("content-type")?.strip_prefix("multipart/form-data;")?.trim();
    let boundary = kind.strip_prefix("boundary=")?.trim_matches('"');
    let body = std::str::from_utf8(&request.body).ok()?;
    let delimiter = format!("--{boundary}");
    // The last delimiter ends with two dashes, and nothing of meaning follows.
    let (parts, _) = body.strip_prefix(&delimiter)?.split_once(&format!("\r\n{delimiter}--"))?;
    parts.split(&format!("\r\n{delimiter}")).map(field).collect()
}

/// Name and value of one part.
fn field(part: &str) -> Option<(String, String)> {
    let (headers, value) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then(|| value.trim())
    })?;
    let name = disposition.strip_prefix("form-data;")?.trim().strip_prefix("name=\"")?.strip_suffix('"')?;
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::stage::{bare, pairs};
    use super::*;

    fn request(kind: &str, body: &str) -> Request {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        Request { headers, body: bytes::Bytes::copy_from_slice(body.as_bytes()), ..bare("POST", "/", &[]) }
    }

    #[test]
    fn fields_are_read_in_their_order() {
        let body = concat!(
            "--b-1\r\nContent-Disposition: form-data; name=\"req\"\r\n\r\n{\"name\":\"宫保\"}\r\n",
            "--b-1\r\ncontent-disposition: form-data; name=\"ts\"\r\nContent-Type: text/plain\r\n\r\n1\r\n2\r\n",
            "--b-1--\r\n"
        );
        let read = pairs(&[("req", r#"{"name":"宫保"}"#), ("ts", "1\r\n2")]);
        for kind in ["multipart/form-data; boundary=b-1", "multipart/form-data; boundary=\"b-1\""] {
            assert_eq!(fields(&request(kind, body)), Some(read.clone()));
        }
        assert_eq!(fields(&request("multipart/form-data; boundary=b-2", body)), None);
        assert_eq!(fields(&request("application/x-www-form-urlencoded", body)), None);
        assert_eq!(fields(&request("multipart/form-data; boundary=b-1", &body.replace("--b-1--", ""))), None);
    }
}
