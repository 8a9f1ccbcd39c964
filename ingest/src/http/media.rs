//! What a request says about its body.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use super::problem::Problem;
use super::splitter::Shape;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    None,
    Gzip,
    Zstd,
}

/// Refuses a body that says it is anything but JSON. One that says nothing is taken for it.
pub(super) fn json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers)?.as_deref() {
        None | Some("application/json") => Ok(()),
        Some(other) => Err(unsupported(other, "application/json")),
    }
}

/// How a bulk body is written.
pub(super) fn shape(headers: &HeaderMap) -> Result<Shape, Problem> {
    match media_type(headers)?.as_deref() {
        None | Some("application/json") => Ok(Shape::Array),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => Ok(Shape::Lines),
        Some(other) => Err(unsupported(other, "application/json, application/x-ndjson, application/jsonl")),
    }
}

/// How a body is compressed.
pub(super) fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    match text(headers, &header::CONTENT_ENCODING)?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => Ok(Coding::None),
        Some("gzip" | "x-gzip") => Ok(Coding::Gzip),
        Some("zstd") => Ok(Coding::Zstd),
        Some(other) => {
            let detail = format!("content encoding `{}` is not known; send gzip, zstd, or the body as it is", brief(other));
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", "Unsupported encoding", detail)
                .header(header::ACCEPT_ENCODING, "gzip, zstd, identity"))
        }
    }
}

/// Whether the caller wants to be answered before its jobs are durable (RFC 7240).
pub(super) fn wants_early_answer(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"))
}

/// The trace that the request belongs to, if it has the form of one: `00-<32 hex>-<16 hex>-<2 hex>`.
pub(super) fn trace(headers: &HeaderMap) -> Option<&str> {
    let trace = headers.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = trace.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    (lengths == [2, 32, 16, 2] && hex).then_some(trace)
}

/// The text of a header that may be there once.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::bad_request(format!("header {name} is not plain text")))?;
    Ok(Some(text.trim()))
}

fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let value = text(headers, &header::CONTENT_TYPE)?;
    let essence = value.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    Ok(essence.filter(|essence| !essence.is_empty()))
}

fn unsupported(found: &str, accepted: &str) -> Problem {
    let detail = format!("content type `{}` is not taken here; say `content-type: ...` with one of: {accepted}", brief(found));
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
        .with("accepted", accepted.split(", ").collect::<Vec<_>>())
        .header(header::ACCEPT, accepted)
}

/// What came from outside is cut before it is shown back.
fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn what_a_body_is_is_read_from_its_header() {
        assert_eq!(shape(&HeaderMap::new()).unwrap(), Shape::Array);
        assert_eq!(shape(&headers("content-type", "Application/JSON; charset=utf-8")).unwrap(), Shape::Array);
        assert_eq!(shape(&headers("content-type", "application/jsonl")).unwrap(), Shape::Lines);
        assert!(shape(&headers("content-type", "text/csv")).is_err());
        assert_eq!(coding(&headers("content-encoding", "GZIP")).unwrap(), Coding::Gzip);
        assert!(coding(&headers("content-encoding", "br")).is_err());
    }

    #[test]
    fn only_what_has_the_form_of_a_trace_is_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(&headers("traceparent", good)), Some(good));
        for bad in ["", "00-a-b-01", &good.replace('a', "z"), &format!("{good}-x")] {
            assert_eq!(trace(&headers("traceparent", bad)), None);
        }
    }

    #[test]
    fn an_early_answer_is_one_preference_among_others() {
        assert!(wants_early_answer(&headers("prefer", "wait=10, Respond-Async")));
        assert!(!wants_early_answer(&headers("prefer", "respond-asynchronously")));
    }
}
