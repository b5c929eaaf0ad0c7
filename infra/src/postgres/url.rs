//! A database's URL, which may name several hosts as libpq's does (PostgreSQL manual, 34.1.1.3).
//!
//! The driver knows one host, so a URL with several becomes one a host, each parsed by the driver:
//! password files and TLS go by host. What is said of a bad one never quotes it, as it may hold a
//! password.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;

use super::{error::PostgresError, programs::Lead};

/// More standbys than anybody has; each is asked every second.
const HOSTS_MAX: usize = 16;
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
/// Of what a URL may say, what libpq knows and its programs need.
const OF_LIBPQ: [&str; 9] =
    ["host", "hostaddr", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"];
/// What libpq can be asked for. Here it is always the one that takes writes.
const SESSIONS: [&str; 3] = ["any", "read-write", "primary"];

/// How to connect to each host that `url` names, in its order.
///
/// # Errors
/// [`PostgresError::Url`].
pub(super) fn hosts_of(url: &str) -> Result<Vec<PgConnectOptions>, PostgresError> {
    let parse = |url: &str| {
        PgConnectOptions::from_str(url).map_err(|error| PostgresError::Url(error.to_string()))
    };
    split(url)?.iter().map(|url| parse(url)).collect()
}

/// How Postgres's own programs reach the host that `options` lead to: the URL without its
/// password, which would show in the list of processes, and that password.
///
/// # Errors
/// [`PostgresError::Url`].
pub(super) fn for_libpq(url: &str, options: &PgConnectOptions) -> Result<Lead, PostgresError> {
    let urls = split(url)?;
    let place = |options: &PgConnectOptions| {
        let socket = options.get_socket().map(|socket| socket.to_owned());
        (socket, options.get_host().to_owned(), options.get_port())
    };
    let used = hosts_of(url)?.iter().position(|host| place(host) == place(options));
    let url = used.and_then(|used| urls.get(used)).map_or(url, String::as_str);
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (user, rest),
        None => ("", rest),
    };
    let (user, mut password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password))),
        None => (user, None),
    };
    let mut kept = Vec::new();
    for pair in query.split('#').next().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "password" => password = Some(decoded(value)),
            // As the driver spells it, too.
            "ssl-mode" => kept.push(format!("sslmode={value}")),
            "ssl-root-cert" | "ssl-ca" => kept.push(format!("sslrootcert={value}")),
            "ssl-cert" => kept.push(format!("sslcert={value}")),
            "ssl-key" => kept.push(format!("sslkey={value}")),
            _ if OF_LIBPQ.contains(&key) => kept.push(pair.to_owned()),
            _ => {}
        }
    }
    let at = if user.is_empty() { "" } else { "@" };
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    let url = format!("{scheme}://{user}{at}{rest}{query}");
    Ok(Lead { url, password, private: false })
}

/// A part of a URL as it is meant (RFC 3986, section 2.1).
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// A URL a host.
fn split(url: &str) -> Result<Vec<String>, PostgresError> {
    let Some((scheme, rest)) = url.split_once("://").filter(|(it, _)| SCHEMES.contains(it)) else {
        return refused("it doesn't begin with postgres://");
    };
    let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, named) = match authority.rsplit_once('@') {
        Some((user, named)) => (format!("{user}@"), named),
        None => (String::new(), authority),
    };
    let Query { hosts, ports, others } = Query::read(query)?;

    let named: Vec<&str> = named.split(',').collect();
    // As for libpq, a host or port in the query is instead of the one before it.
    let hosts_in_query = hosts.is_some();
    let hosts = hosts.unwrap_or_else(|| named.iter().map(|&host| host.to_owned()).collect());
    if hosts.len() > HOSTS_MAX {
        return refused(format!("{} hosts are more than {HOSTS_MAX}", hosts.len()));
    }
    if hosts.len() > 1 && hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return refused("a host's name is missing in the list");
    }
    let ports = ports.unwrap_or_default();
    if ports.len() > 1 && ports.len() != hosts.len() {
        return refused(format!("there are {} hosts and {} ports", hosts.len(), ports.len()));
    }
    let urls = hosts.iter().enumerate().map(|(index, host)| {
        let mut query = others.clone();
        let host = if hosts_in_query {
            query.push(format!("host={host}"));
            named.first().copied().unwrap_or_default()
        } else {
            host
        };
        if let Some(port) = ports.get(index).or(ports.first()).filter(|port| !port.is_empty()) {
            query.push(format!("port={port}"));
        }
        format!("{scheme}://{user}{host}{path}?{}{fragment}", query.join("&"))
    });
    Ok(urls.collect())
}

/// The parts of a URL's query that are about hosts, and the others as they stand.
#[derive(Default)]
struct Query {
    hosts: Option<Vec<String>>,
    ports: Option<Vec<String>>,
    others: Vec<String>,
}

impl Query {
    fn read(query: &str) -> Result<Self, PostgresError> {
        let mut read = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "host" | "hostaddr" => read.hosts = Some(list(value)),
                "port" => read.ports = Some(list(value)),
                "target_session_attrs" if SESSIONS.contains(&value) => {}
                "target_session_attrs" => {
                    return refused(format!(
                        "target_session_attrs may be {}: a database that takes no writes is of no \
                         use here",
                        SESSIONS.join(", ")
                    ));
                }
                _ => read.others.push(pair.to_owned()),
            }
        }
        Ok(read)
    }
}

/// The items of a list, whose commas may be percent-encoded.
fn list(value: &str) -> Vec<String> {
    value.replace("%2C", ",").replace("%2c", ",").split(',').map(str::to_owned).collect()
}

fn refused<T>(what: impl Into<String>) -> Result<T, PostgresError> {
    Err(PostgresError::Url(what.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(url: &str) -> Vec<String> {
        let place = |options: &PgConnectOptions| match options.get_socket() {
            Some(socket) => format!("{}:{}", socket.display(), options.get_port()),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        hosts_of(url).unwrap().iter().map(place).collect()
    }

    #[test]
    fn every_host_of_a_list_is_one_to_connect_to() {
        for (url, expected) in [
            ("postgres://u@h1/d", vec!["h1:5432"]),
            ("postgres://u@h1:1,h2:2,h3/d", vec!["h1:1", "h2:2", "h3:5432"]),
            ("postgres://u:p@h1,h2?sslmode=disable", vec!["h1:5432", "h2:5432"]),
            ("postgresql://u:a,b%40@[::1]:7,h2:8/d", vec!["[::1]:7", "h2:8"]),
            ("postgres://u@h1:1,h2:2/d?target_session_attrs=read-write", vec!["h1:1", "h2:2"]),
            ("postgres://u@h/d?host=h1,h2&port=1,2", vec!["h1:1", "h2:2"]),
            ("postgres://u@h/d?host=h1%2Ch2&port=7", vec!["h1:7", "h2:7"]),
            ("postgres://u@h1,h2/d?port=7", vec!["h1:7", "h2:7"]),
            ("postgres://u@h/d?host=/run/a,/run/b", vec!["/run/a:5432", "/run/b:5432"]),
            ("postgres://u@%2Frun%2Fa:1,h2:2/d", vec!["/run/a:1", "h2:2"]),
        ] {
            assert_eq!(places(url), expected, "{url}");
        }
    }

    #[test]
    fn what_else_the_url_says_goes_for_every_host() {
        let url = "postgres://ann:s,e@h1,h2/shop?sslmode=require&application_name=x";
        for options in hosts_of(url).unwrap() {
            assert_eq!(options.get_username(), "ann");
            assert_eq!(options.get_database(), Some("shop"));
            assert_eq!(options.get_application_name(), Some("x"));
            assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
        }
    }

    #[test]
    fn programs_are_led_to_the_host_in_use_and_see_no_password() {
        let url = "postgres://ann:g%65heim%2F@h1:1,h2:2/shop?ssl-mode=require&x=1";
        let used = &hosts_of(url).unwrap()[1];
        let Lead { url, password, .. } = for_libpq(url, used).unwrap();
        assert_eq!(url, "postgres://ann@h2:2/shop?sslmode=require");
        assert_eq!(password.as_deref(), Some("geheim/"));
        let socket = "postgres://u@localhost:7/d?host=/run/a&password=p%41";
        let used = &hosts_of(socket).unwrap()[0];
        let Lead { url, password, .. } = for_libpq(socket, used).unwrap();
        assert_eq!(url, "postgres://u@localhost:7/d?host=/run/a");
        assert_eq!(password.as_deref(), Some("pA"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_password() {
        for url in [
            "postgres://u:geheim@h1,,h2/d",
            "postgres://u:geheim@h1:1,h2:x/d",
            "postgres://u:geheim@h1,h2,h3/d?port=1,2",
            "postgres://u:geheim@h1,h2/d?target_session_attrs=standby",
            "postgres://u:geheim@1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/d",
            "u:geheim@h1,h2",
        ] {
            let refused = hosts_of(url).unwrap_err().to_string();
            assert!(!refused.contains("geheim"), "{refused}");
        }
    }
}
