//! What a request shows of who sent it.

use actix_web::HttpRequest;
use actix_web::cookie::Cookie;
use actix_web::http::header::ORIGIN;
use pvc_api::API_KEY_HEADER;
use pvc_api::message::ErrorCode;
use pvc_core::access::Source;

use super::session;
use crate::error::ApiError;

/// What a page that is not a browser's own request sends instead of `Origin`.
const REQUESTED_WITH: &str = "X-Requested-With";

/// What a request shows of who sent it.
#[derive(Debug)]
pub(crate) struct Presented {
    /// The token in its header.
    pub(super) token: Option<Vec<u8>>,
    /// What its session's cookie holds.
    pub(super) session: Option<String>,
    /// The page that sent it.
    page: Page,
    /// Whether it may change something.
    pub(super) changes: bool,
    /// The address it came from, in words.
    pub(super) address: String,
    /// Whom its failures are counted for.
    pub(super) source: Option<Source>,
}

/// The page that sent a request, as the browser says.
#[derive(Debug)]
struct Page {
    origin: Option<String>,
    requested_with: bool,
    /// The host that the request was sent to.
    host: String,
}

impl Presented {
    /// What `request` shows.
    pub(crate) fn of(request: &HttpRequest) -> Presented {
        let headers = request.headers();
        let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
        Presented {
            token: headers
                .get(API_KEY_HEADER)
                .map(|value| value.as_bytes().to_vec())
                .filter(|token| !token.is_empty()),
            session: request
                .cookie(session::COOKIE)
                .as_ref()
                .map(Cookie::value)
                .filter(|secret| !secret.is_empty())
                .map(str::to_owned),
            page: Page {
                origin: headers
                    .get(ORIGIN)
                    .map(|value| value.to_str().unwrap_or_default().to_owned()),
                requested_with: headers.contains_key(REQUESTED_WITH),
                host: request.connection_info().host().to_owned(),
            },
            changes: !request.method().is_safe(),
            address: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            source: peer.map(Source::from),
        }
    }

    /// Whether a browser says which page sent it.
    pub(super) fn names_its_page(&self) -> bool {
        self.page.origin.is_some()
    }

    /// Refuses a change that a page of another site may have sent. `SameSite` keeps such a page's requests from
    /// carrying the cookie; this is the second lock, for browsers and sister domains for which it does not.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_page(&self) -> Result<(), ApiError> {
        let host = &self.page.host;
        let good = match &self.page.origin {
            Some(origin) => origin
                .split_once("://")
                .is_some_and(|(_, authority)| !authority.is_empty() && authority.eq_ignore_ascii_case(host)),
            // A page of another site can not add this header without being asked for permission first.
            None => self.page.requested_with,
        };
        if good {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::Forbidden,
            format!(
                "A change by a session must come from a page of this API: its Origin is not {host}, or there is neither \
                 an Origin nor the header {REQUESTED_WITH}"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_pages_of_the_same_host_change_anything() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let mut request = TestRequest::post().insert_header(("Host", "pvc.example:7370"));
            for header in headers {
                request = request.insert_header(*header);
            }
            Presented::of(&request.to_http_request()).check_page().is_ok()
        };
        assert!(check(&[("Origin", "https://pvc.example:7370")]));
        assert!(check(&[("Origin", "https://PVC.example:7370")]));
        assert!(check(&[("X-Requested-With", "pvc")]));
        for bad in [
            &[][..],
            &[("Origin", "https://pvc.example")],
            &[("Origin", "https://evil.example")],
            &[("Origin", "null")],
            &[("Origin", "")],
            &[("Origin", "https://evil.example"), ("X-Requested-With", "pvc")],
        ] {
            assert!(!check(bad), "{bad:?}");
        }
    }

    proptest! {
        // Whatever a client sends, the daemon must not fall over it.
        #[test]
        fn any_header_can_be_read(
            token in proptest::collection::vec(any::<u8>(), 0..100),
            cookie in proptest::collection::vec(any::<u8>(), 0..200),
            origin in proptest::collection::vec(any::<u8>(), 0..100),
            host in "[ -~]{0,40}",
        ) {
            let mut request = TestRequest::post();
            for (name, value) in [
                (API_KEY_HEADER, token.as_slice()),
                ("Cookie", cookie.as_slice()),
                ("Origin", origin.as_slice()),
                ("Host", host.as_bytes()),
            ] {
                // What no header can hold does not arrive.
                if let Ok(value) = actix_web::http::header::HeaderValue::from_bytes(value) {
                    request = request.insert_header((name, value));
                }
            }
            let presented = Presented::of(&request.to_http_request());
            let _ = presented.check_page();
            prop_assert!(presented.token.is_none_or(|token| !token.is_empty()));
        }
    }
}
