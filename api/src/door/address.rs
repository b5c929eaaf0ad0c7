//! Where a request comes from, as far as that tells strangers apart.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

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

/// The proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether that is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whom a request comes from that came over a connection of `peer`: the last address in
    /// `X-Forwarded-For` that isn't a trusted proxy's itself. What stands before it anybody may
    /// have written.
    pub fn origin_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut found = peer;
        let named = headers.get_all(FORWARDED_FOR).into_iter().rev();
        let named =
            named.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
        let mut named = named.map(|name| name.trim().parse::<IpAddr>());
        while self.contains(found) {
            let Some(Ok(before)) = named.next() else { break };
            found = before;
        }
        origin(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
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
    fn who_has_a_network_has_one_address() {
        assert_eq!(of("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
        assert_eq!(of("::1", &["2001:db8:1:2::77"]), "2001:db8:1:2::");
        assert_eq!(of("::ffff:203.0.113.9", &[]), "203.0.113.9");
    }
}
