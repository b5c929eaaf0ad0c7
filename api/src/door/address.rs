//! Where a request comes from, as far as that tells strangers apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::{extract::Request, http::HeaderMap};
use ipnet::IpNet;

use super::visit::Visit;

const FORWARDED: &str = "forwarded";
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Of an IPv6 address, as much as a network is given; the rest its hosts choose.
const IPV6_NETWORK_BITS: u32 = 64;

/// The address that stands for everybody who may come from there: an IPv4 address, or an IPv6
/// network of 64 bits.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::MAX << (128 - IPV6_NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The proxies that are believed when they say for whom they ask.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether that is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whom a request comes from.
    pub fn sender_of(&self, request: &Request) -> IpAddr {
        let visit = request.extensions().get::<Visit>();
        let peer = visit.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), Visit::peer);
        self.origin_of(peer, request.headers())
    }

    /// Whom a request comes from that came over a connection of `peer`: the last address in
    /// `Forwarded` (RFC 7239) or `X-Forwarded-For` that isn't a trusted proxy's itself. What stands
    /// before it anybody may have written. A proxy writes one of the two, and may pass on the other
    /// as a client wrote it: where both are there and disagree, neither is believed.
    pub fn origin_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return origin(peer);
        }
        let is_there = |name| headers.contains_key(name);
        let by_field = |read: fn(&HeaderMap) -> Vec<Option<IpAddr>>| self.last(peer, read(headers));
        let found = match (is_there(FORWARDED), is_there(FORWARDED_FOR)) {
            (true, false) => by_field(forwarded),
            (false, _) => by_field(forwarded_for),
            (true, true) => match (by_field(forwarded), by_field(forwarded_for)) {
                (one, other) if one == other => one,
                _ => peer,
            },
        };
        origin(found)
    }

    /// The last that isn't a proxy's, of those that are named; what can't be read ends them.
    fn last(&self, peer: IpAddr, named: Vec<Option<IpAddr>>) -> IpAddr {
        let (mut found, mut named) = (peer, named.into_iter().rev());
        while self.contains(found) {
            let Some(Some(before)) = named.next() else { break };
            found = before;
        }
        found
    }
}

/// The values of a header, one after the other, split at commas outside quotes.
fn elements<'h>(headers: &'h HeaderMap, name: &'static str) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter();
    // What isn't ASCII can't be read, and ends what may be believed.
    let values = values.map(|value| value.to_str().unwrap_or("?"));
    values.flat_map(|value| {
        let mut quoted = false;
        value.split(move |letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        })
    })
}

fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    elements(headers, FORWARDED_FOR).map(node).collect()
}

fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let whose = |element: &str| {
        let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
        node(value.trim().trim_matches('"'))
    };
    elements(headers, FORWARDED).map(whose).collect()
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`. None for a name that hides one.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&'static str]) -> String {
        named(peer, &forwarded.iter().map(|value| (FORWARDED_FOR, *value)).collect::<Vec<_>>())
    }

    fn named(peer: &str, forwarded: &[(&'static str, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in forwarded {
            headers.append(*name, value.parse().unwrap());
        }
        let trusted = TrustedProxies(trusted.to_vec());
        trusted.origin_of(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_nobody_else() {
        assert_eq!(of("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::ffff:10.0.0.1", &["1.2.3.4, 198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.1", "10.9.9.9"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.1, nonsense"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn both_headers_are_read_and_believed_when_they_agree() {
        let of = |value| named("10.0.0.1", &[(FORWARDED, value)]);
        assert_eq!(of("for=198.51.100.1"), "198.51.100.1");
        assert_eq!(of("for=1.2.3.4, for=198.51.100.1;proto=https, FOR=10.9.9.9"), "198.51.100.1");
        assert_eq!(of("proto=https;for=\"[2001:db8:1:2::77]:4711\""), "2001:db8:1:2::");
        assert_eq!(of("for=\"198.51.100.1:80\";by=\"a,b\""), "198.51.100.1");
        for hidden in ["for=_hidden", "for=unknown", "proto=https", "nonsense", ""] {
            assert_eq!(of(hidden), "10.0.0.1", "{hidden}");
        }
        assert_eq!(named("203.0.113.9", &[(FORWARDED, "for=198.51.100.1")]), "203.0.113.9");
        let both =
            |other| named("10.0.0.1", &[(FORWARDED, "for=198.51.100.1"), (FORWARDED_FOR, other)]);
        assert_eq!(both("198.51.100.1"), "198.51.100.1");
        assert_eq!(both("198.51.100.2"), "10.0.0.1", "a client wrote one of them");
        let ported = |value| named("10.0.0.1", &[(FORWARDED_FOR, value)]);
        assert_eq!(ported("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(ported("[2001:db8:1:2::77]"), "2001:db8:1:2::");
    }

    #[test]
    fn who_has_a_network_has_one_address() {
        assert_eq!(of("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
        assert_eq!(of("::1", &["2001:db8:1:2::77"]), "2001:db8:1:2::");
        assert_eq!(of("::ffff:203.0.113.9", &[]), "203.0.113.9");
    }
}
