//! Web pages: which may call, and by which names the server may be called.
//!
//! A browser runs the pages of strangers, which may send requests to any address that it reaches: to
//! one that only this machine reaches, too. It says whose page asks (`Origin`), so a page of another
//! server is refused that the setting `cors_origins` does not name. Other clients send no such header.
//!
//! A stranger's page can have its own name lead to this server's address, and then asks in the
//! server's own name (DNS rebinding). So where the address is one of this machine alone, or where
//! names are set, the name by which the server is called (`Host`) must be one of its own. An address
//! as the name is none that can be led elsewhere.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, Request, Version, header};
use lethe_server::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Where a request came to, as far as it says what is to be checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entrance {
    /// An address of this machine alone, or a socket in its files.
    pub(super) is_loopback: bool,
    /// Whether it came over TLS.
    pub(super) is_tls: bool,
}

/// Whose pages may call, and by which names.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    /// Pages of other servers that may call; `*` for all.
    pub(super) pages: Vec<String>,
    /// Names of this server; `*` for all.
    pub(super) hosts: Vec<String>,
}

impl Origins {
    /// Refuses what a browser sends for somebody else's page. `is_page` says whether the path asks
    /// for a page of this server, to which links may lead from anywhere.
    ///
    /// # Errors
    /// 400 where the request does not say once by which name it calls, 421 for a name of another
    /// server's, 403 for a page of another's.
    pub(super) fn check<B>(
        &self,
        request: &Request<B>,
        entrance: Entrance,
        is_page: impl FnOnce() -> bool,
    ) -> Result<(), Problem> {
        let host = host(request)?;
        let is_checked = entrance.is_loopback || !self.hosts.is_empty();
        if let Some(host) = host.as_ref().filter(|_| is_checked)
            && !self.is_own(host)
        {
            let detail = "this server has another name: see the setting allowed_hosts";
            return Err(Problem::new(421, "LETHE-HOST", detail));
        }
        let is_foreign = match self.origin(request.headers(), host.as_ref(), entrance) {
            Some(is_own) => !is_own,
            // No browser, or one that says so only where a page asks for something.
            None => {
                let is_link = || {
                    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
                    is_read && text(request.headers(), FETCH_MODE) == Some("navigate")
                };
                let site = text(request.headers(), FETCH_SITE);
                matches!(site, Some("cross-site" | "same-site"))
                    && !self.takes_any_page()
                    && !(is_link() && is_page())
            }
        };
        if is_foreign {
            let detail = "a web page of another server asks: see the setting cors_origins";
            return Err(Problem::new(403, "LETHE-ORIGIN", detail));
        }
        Ok(())
    }

    fn takes_any_page(&self) -> bool {
        self.pages.iter().any(|page| page == "*")
    }

    /// Whether the page that asks may; `None` where the request is none of a page's.
    fn origin(
        &self,
        headers: &HeaderMap,
        host: Option<&Authority>,
        entrance: Entrance,
    ) -> Option<bool> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next()?;
        if self.takes_any_page() {
            return Some(true);
        }
        let Some(origin) = origin.to_str().ok().filter(|_| origins.next().is_none()) else {
            return Some(false);
        };
        let is_named = |page: &String| page.eq_ignore_ascii_case(origin);
        Some(self.pages.iter().any(is_named) || is_same(origin, host, entrance))
    }

    /// Whether this server may be called so.
    fn is_own(&self, host: &Authority) -> bool {
        let bare = host.host().trim_end_matches('.');
        let is_named = |name: &String| {
            *name == "*"
                || name.eq_ignore_ascii_case(bare)
                || name.eq_ignore_ascii_case(host.as_str())
        };
        is_local(bare) || self.hosts.iter().any(is_named)
    }
}

/// Whether a name is an address, or one that every machine has for itself (RFC 6761, 6.3).
fn is_local(name: &str) -> bool {
    let in_brackets = |name: &str| {
        let inside = name.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<Ipv6Addr>().ok()
    };
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || in_brackets(&name).is_some()
        || name == "localhost"
        || name.ends_with(".localhost")
}

/// Whether a page is of the server that it asks, as far as this one can tell: a proxy in front of it
/// may speak TLS for it.
fn is_same(origin: &str, host: Option<&Authority>, entrance: Entrance) -> bool {
    let default = match origin.split_once("://") {
        Some(("https", _)) => 443,
        Some(("http", _)) if !entrance.is_tls => 80,
        _ => return false,
    };
    let page = origin.split_once("://").map(|(_, page)| page);
    let page = page.and_then(|page| page.parse::<Authority>().ok());
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    match (page, host) {
        (Some(page), Some(host)) => {
            page.host().eq_ignore_ascii_case(host.host()) && port(&page) == port(host)
        }
        _ => false,
    }
}

/// By which name a request calls, and at which port.
///
/// # Errors
/// 400 for HTTP/1.1 without that or with two, and for what is no name (RFC 9112, 3.2).
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Problem> {
    let wrong = |found: &str| {
        let detail = format!("the header Host: expected one name, found {found}");
        Problem::not_understood("LETHE-HOST", detail)
    };
    let mut headers = request.headers().get_all(header::HOST).iter();
    let header = headers.next();
    if headers.next().is_some() {
        return Err(wrong("several"));
    }
    let named = match header {
        None if request.version() == Version::HTTP_11 => return Err(wrong("none")),
        None => None,
        Some(value) => {
            let name = value.to_str().ok().and_then(|name| name.parse().ok());
            let name = name.filter(|name: &Authority| !name.as_str().contains('@'));
            Some(name.ok_or_else(|| wrong("something else"))?)
        }
    };
    match (request.uri().authority(), named) {
        (Some(target), Some(named)) if !target.as_str().eq_ignore_ascii_case(named.as_str()) => {
            Err(wrong("another one than in the request's target"))
        }
        (target, named) => Ok(target.cloned().or(named)),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(pages: &[&str], hosts: &[&str]) -> Origins {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Origins {
            pages: owned(pages),
            hosts: owned(hosts),
        }
    }

    const LOOPBACK: Entrance = Entrance {
        is_loopback: true,
        is_tls: false,
    };
    const OPEN: Entrance = Entrance {
        is_loopback: false,
        is_tls: false,
    };
    const TLS: Entrance = Entrance {
        is_loopback: false,
        is_tls: true,
    };

    /// The status and code of a request with these headers; 200 where it is let in.
    fn checked(origins: &Origins, entrance: Entrance, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri("/api/v1/infer");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let checked = origins.check(&request, entrance, || false);
        checked.map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn the_name_is_one_and_on_loopback_the_servers_own() {
        let none = origins(&[], &[]);
        let named = origins(&[], &["lethe.example", "other.example:8443"]);
        let any = origins(&[], &["*"]);
        let cases: [(&Origins, Entrance, &[&str], u16); 25] = [
            (&none, LOOPBACK, &["localhost:8080"], 200),
            (&none, LOOPBACK, &["LOCALHOST"], 200),
            (&none, LOOPBACK, &["localhost.:1"], 200),
            (&none, LOOPBACK, &["a.localhost"], 200),
            (&none, LOOPBACK, &["127.0.0.1:8080"], 200),
            (&none, LOOPBACK, &["[::1]:8080"], 200),
            (&none, LOOPBACK, &["192.0.2.7"], 200),
            (&none, LOOPBACK, &["evil.example"], 421),
            (&none, LOOPBACK, &["localhost.evil.example"], 421),
            (&none, LOOPBACK, &["evillocalhost"], 421),
            (&none, LOOPBACK, &["127.0.0.1.evil.example"], 421),
            (&none, LOOPBACK, &["evil.example@localhost"], 400),
            (&none, LOOPBACK, &[""], 400),
            (&none, LOOPBACK, &["a b"], 400),
            (&none, LOOPBACK, &[], 400),
            (&none, LOOPBACK, &["localhost", "localhost"], 400),
            (&none, OPEN, &["any.example"], 200),
            (&none, OPEN, &[], 400),
            (&none, OPEN, &["a", "b"], 400),
            (&named, OPEN, &["lethe.example:8080"], 200),
            (&named, OPEN, &["other.example:8443"], 200),
            (&named, OPEN, &["other.example"], 421),
            (&named, OPEN, &["evil.example"], 421),
            (&named, LOOPBACK, &["Lethe.Example"], 200),
            (&any, LOOPBACK, &["evil.example"], 200),
        ];
        for (origins, entrance, hosts, expected) in cases {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let status = checked(origins, entrance, &headers);
            assert_eq!(status, expected, "{hosts:?} {origins:?} {entrance:?}");
        }
        // Other versions may leave it out, and may have it as the target alone.
        let target = |version, target: &str, host: Option<&str>| {
            let mut request = Request::builder().version(version).uri(target);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let request = request.body(()).unwrap();
            let checked = none.check(&request, LOOPBACK, || false);
            checked.map_or_else(|problem| problem.status, |()| 200)
        };
        assert_eq!(target(Version::HTTP_10, "/", None), 200);
        assert_eq!(target(Version::HTTP_2, "http://localhost/", None), 200);
        assert_eq!(target(Version::HTTP_2, "http://evil.example/", None), 421);
        let both = |host| target(Version::HTTP_11, "http://evil.example/", Some(host));
        assert_eq!((both("localhost"), both("evil.example")), (400, 421));
    }

    #[test]
    fn pages_of_other_servers_are_refused() {
        let none = origins(&[], &[]);
        let named = origins(&["https://app.example"], &[]);
        let any = origins(&["*"], &[]);
        let cases: [(&Origins, Entrance, &str, &str, u16); 18] = [
            (
                &none,
                LOOPBACK,
                "localhost:8080",
                "http://localhost:8080",
                200,
            ),
            (&none, LOOPBACK, "127.0.0.1", "http://127.0.0.1", 200),
            (
                &none,
                LOOPBACK,
                "localhost:8080",
                "http://localhost:3000",
                403,
            ),
            (
                &none,
                LOOPBACK,
                "localhost:8080",
                "http://127.0.0.1:8080",
                403,
            ),
            (
                &none,
                LOOPBACK,
                "localhost:8080",
                "https://evil.example",
                403,
            ),
            (&none, LOOPBACK, "localhost:8080", "null", 403),
            (&none, LOOPBACK, "localhost:8080", "", 403),
            (
                &none,
                LOOPBACK,
                "localhost",
                "chrome-extension://localhost",
                403,
            ),
            // A proxy speaks TLS for the server.
            (&none, OPEN, "lethe.example", "https://lethe.example", 200),
            (
                &none,
                OPEN,
                "lethe.example:443",
                "https://lethe.example",
                200,
            ),
            (
                &none,
                OPEN,
                "lethe.example",
                "https://lethe.example:8443",
                403,
            ),
            (&none, TLS, "lethe.example", "https://lethe.example", 200),
            (&none, TLS, "lethe.example", "http://lethe.example", 403),
            (&named, OPEN, "lethe.example", "https://app.example", 200),
            (
                &named,
                OPEN,
                "lethe.example",
                "https://app.example.evil",
                403,
            ),
            (&named, OPEN, "lethe.example", "http://app.example", 403),
            (&any, OPEN, "lethe.example", "https://evil.example", 200),
            (&any, OPEN, "lethe.example", "null", 200),
        ];
        for (origins, entrance, host, origin, expected) in cases {
            let headers = [("host", host), ("origin", origin)];
            let status = checked(origins, entrance, &headers);
            assert_eq!(status, expected, "{origin:?} at {host:?} {origins:?}");
        }
        let twice = ["http://localhost", "https://evil.example"].map(|page| ("origin", page));
        let headers = [("host", "localhost"), twice[0], twice[1]];
        assert_eq!(checked(&none, LOOPBACK, &headers), 403);
    }

    #[test]
    fn what_a_page_embeds_is_refused_and_a_link_to_a_page_followed() {
        let ask = |site: &'static str, mode: &'static str, is_page: bool| {
            let request = Request::builder()
                .uri("/")
                .header("host", "localhost")
                .header("sec-fetch-site", site)
                .header("sec-fetch-mode", mode)
                .body(())
                .unwrap();
            let checked = origins(&[], &[]).check(&request, LOOPBACK, || is_page);
            checked.map_or_else(|problem| problem.status, |()| 200)
        };
        let cases = [
            ("none", "navigate", false, 200),
            ("same-origin", "cors", false, 200),
            ("cross-site", "no-cors", false, 403),
            ("cross-site", "no-cors", true, 403),
            ("same-site", "no-cors", false, 403),
            ("cross-site", "navigate", false, 403),
            ("cross-site", "navigate", true, 200),
        ];
        for (site, mode, is_page, expected) in cases {
            assert_eq!(
                ask(site, mode, is_page),
                expected,
                "{site} {mode} {is_page}"
            );
        }
    }
}
