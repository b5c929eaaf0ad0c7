//! Where may be sent to: nowhere inside.
//!
//! A URL comes from whoever may make endpoints, and this server stands where they don't: beside its
//! database, near a cloud's metadata, in a company's network. So an address is looked at when it is
//! given, and again whenever a connection is made: whatever a name resolves to is vetted, all of
//! it, and it is those very addresses that are connected to, so that nothing is looked up twice
//! with two answers. Nothing is followed elsewhere, and no proxy stands in between.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::Semaphore, time::timeout};
use url::{Host, Url};

/// The longest URL of an endpoint, in characters.
pub const URL_CHARS_MAX: usize = 2_048;
/// How long a name may take to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// Names that are resolved at once: each holds a thread.
const RESOLVING_MAX: usize = 64;

/// Networks that are inside, or nowhere (IANA's special-purpose registries, RFC 6890).
const INSIDE_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
    // Public by its number, and inside all the same: a cloud's own services.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
];
/// All that is out there in version 6 …
const OUTSIDE_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// … but for these: protocols, documentation, and what holds an address of version 4.
const INSIDE_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
/// Never, whatever an operator allows: where clouds tell machines their secrets.
const NEVER: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Below this only [`USUAL_PORT`] is asked.
const PORT_MIN: u16 = 1_024;
const USUAL_PORT: u16 = 443;
/// Ports that speak something else: databases, caches, queues, remote hands.
const OTHER_PORTS: [u16; 20] = [
    1433, 1521, 2049, 2181, 2375, 2376, 2379, 3306, 3389, 5432, 5433, 5672, 5900, 6379, 6443, 9042,
    9092, 9200, 11211, 27017,
];

/// Why nothing is sent to an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error(
        "It is no URL like `https://example.com/hooks`, of at most {URL_CHARS_MAX} characters."
    )]
    NoUrl,
    #[error("It begins with `https://`, and with nothing else.")]
    Scheme,
    #[error("It holds no user and no password: a delivery is known by its signature.")]
    User,
    #[error("It ends before a `#`: no server is told what stands after it.")]
    Fragment,
    #[error("Write its host as it is called, `{0}`: in ASCII, numbers in the usual form.")]
    Spelling(String),
    #[error("Port {0} is none for a receiver: 443, or one from 1024 on that is no database's.")]
    Port(u16),
    #[error("It leads inside, to {0}, where nothing is sent.")]
    Inside(IpAddr),
    #[error("Its name leads nowhere now.")]
    Unresolved,
}

impl BadAddress {
    /// Its name in the delivery log.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            _ => "address_refused",
        }
    }
}

/// Who says what a name leads to.
pub trait Lookup: Send + Sync {
    /// All addresses of a name.
    fn look_up<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver.
struct System(Semaphore);

impl Lookup for System {
    fn look_up<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let _turn = self.0.acquire().await.map_err(io::Error::other)?;
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Where may be sent to. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    /// Networks inside that an operator allows.
    allowed: Arc<[IpNet]>,
    /// This very machine, also in the clear: for development.
    loopback: bool,
    lookup: Arc<dyn Lookup>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, loopback, .. } = self;
        write!(f, "Egress {{ allowed: {allowed:?}, loopback: {loopback} }}")
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self::new(Vec::new(), false)
    }
}

impl Egress {
    /// Outside, and to these networks; with `loopback` to this machine, too, also in the clear.
    pub fn new(allowed: Vec<IpNet>, loopback: bool) -> Self {
        let lookup = Arc::new(System(Semaphore::new(RESOLVING_MAX)));
        Self { allowed: allowed.into(), loopback, lookup }
    }

    /// The same, by another resolver.
    #[must_use]
    pub fn looking_up_by(self, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// A URL as it may stand; what its name leads to is vetted when it is connected to.
    ///
    /// # Errors
    /// See [`BadAddress`].
    pub fn url(&self, text: &str) -> Result<Url, BadAddress> {
        if text.chars().count() > URL_CHARS_MAX {
            return Err(BadAddress::NoUrl);
        }
        let url = Url::parse(text).map_err(|_| BadAddress::NoUrl)?;
        let host = url.host().ok_or(BadAddress::Scheme)?;
        let is_here = match &host {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(name) => *name == "localhost",
        };
        match url.scheme() {
            "https" => {}
            "http" if self.loopback && is_here => {}
            _ => return Err(BadAddress::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadAddress::User);
        }
        if text.contains('#') {
            return Err(BadAddress::Fragment);
        }
        // What is called must be what a reader reads.
        let host_text = host.to_string();
        let begins = format!("{}://{host_text}", url.scheme());
        let rest = text.get(..begins.len()).filter(|head| head.eq_ignore_ascii_case(&begins));
        let rest = rest.map(|_| &text[begins.len()..]);
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with([':', '/', '?']));
        if rest.is_none() || text.contains(['\\', '\t', '\n', '\r', ' ']) {
            return Err(BadAddress::Spelling(host_text));
        }
        if let Host::Domain(name) = &host
            && name.ends_with('.')
        {
            return Err(BadAddress::Spelling(name.trim_end_matches('.').to_owned()));
        }
        let port = url.port_or_known_default().unwrap_or(USUAL_PORT);
        let is_usual = port == USUAL_PORT || port >= PORT_MIN || (self.loopback && port == 80);
        if !is_usual || OTHER_PORTS.contains(&port) {
            return Err(BadAddress::Port(port));
        }
        match host {
            Host::Ipv4(address) => self.address(address.into())?,
            Host::Ipv6(address) => self.address(address.into())?,
            Host::Domain(_) => {}
        }
        Ok(url)
    }

    /// An address that may be connected to.
    ///
    /// # Errors
    /// When it is inside.
    pub fn address(&self, address: IpAddr) -> Result<(), BadAddress> {
        let plain = address.to_canonical();
        let is_allowed = !NEVER.contains(&plain)
            && (is_outside(plain)
                || (self.loopback && plain.is_loopback())
                || self.allowed.iter().any(|network| network.contains(&plain)));
        if is_allowed { Ok(()) } else { Err(BadAddress::Inside(address)) }
    }

    /// Everything that a name leads to, if all of it may be connected to.
    ///
    /// # Errors
    /// When one may not, or there is none.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, BadAddress> {
        let found = timeout(RESOLVE_MAX, self.lookup.look_up(name)).await;
        let found = found.ok().and_then(Result::ok).unwrap_or_default();
        if found.is_empty() {
            return Err(BadAddress::Unresolved);
        }
        found.iter().try_for_each(|address| self.address(*address))?;
        Ok(found)
    }

    /// A URL whose name leads somewhere that may be connected to, now.
    ///
    /// # Errors
    /// See [`BadAddress`].
    pub async fn reachable(&self, text: &str) -> Result<Url, BadAddress> {
        let url = self.url(text)?;
        if let Some(Host::Domain(name)) = url.host() {
            self.resolve(name).await?;
        }
        Ok(url)
    }
}

/// What connects goes by the same vetting, each time that it does.
impl Resolve for Egress {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(vetted(self.clone(), name))
    }
}

async fn vetted(egress: Egress, name: Name) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let found = egress.resolve(name.as_str()).await?;
    Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))))
}

fn is_outside(address: IpAddr) -> bool {
    static V4: LazyLock<Vec<Ipv4Net>> = LazyLock::new(|| {
        INSIDE_V4.iter().filter_map(|(net, bits)| Ipv4Net::new(*net, *bits).ok()).collect()
    });
    static V6: LazyLock<Vec<Ipv6Net>> = LazyLock::new(|| {
        INSIDE_V6.iter().filter_map(|(net, bits)| Ipv6Net::new(*net, *bits).ok()).collect()
    });
    match address {
        IpAddr::V4(address) => !V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            let outside = Ipv6Net::new(OUTSIDE_V6.0, OUTSIDE_V6.1);
            outside.is_ok_and(|network| network.contains(&address))
                && !V6.iter().any(|network| network.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives its answers one after the other, the last for ever.
    struct Says(Mutex<Vec<Vec<IpAddr>>>);

    impl Lookup for Says {
        fn look_up<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            Box::pin(async move { Ok(answer) })
        }
    }

    fn saying(answers: &[&[&str]]) -> Egress {
        let parsed = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let says = Says(Mutex::new(answers.iter().map(parsed).collect()));
        Egress::default().looking_up_by(Arc::new(says))
    }

    #[test]
    fn no_form_of_an_address_inside_is_taken() {
        let egress = Egress::default();
        for bad in [
            "https://169.254.169.254/latest/meta-data/",
            "https://169.254.170.2/",
            "https://100.100.100.200/",
            "https://[fd00:ec2::254]/",
            "https://168.63.129.16/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://127.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://017700000001/",
            "https://3232235521/",
            "https://0/",
            "https://0.0.0.0/",
            "https://[::]/",
            "https://[::1]/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[64:ff9b:1::1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:0:7f00:1::]/",
            "https://[2001:db8::1]/",
            "https://[5f00::1]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[ff02::1]/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            // Userinfo.
            "https://example.com@127.0.0.1/",
            "https://user:secret@example.com/",
            "https://user@example.com/",
            "https://@example.com/",
            "https://example.com#@127.0.0.1/",
            "https://example.com\\@127.0.0.1/",
            // What reads like something else.
            "https://①②⑦.⓪.⓪.①/",
            "https://１２７.０.０.１/",
            "https://ⓛocalhost/",
            "https://exämple.com/",
            "https://example。com/",
            "https://exam\tple.com/",
            " https://example.com/",
            "https:example.com/",
            "https:/example.com/",
            "https:///example.com/",
            "https:\\\\example.com/",
            "https://example.com./",
            "https://%31%32%37.0.0.1/",
            // Other schemes.
            "http://example.com/",
            "http://127.0.0.1/",
            "http://localhost/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "ftp://example.com/",
            "data:text/plain,x",
            "//example.com/",
            "example.com",
            "",
            // Other ports.
            "https://example.com:5432/",
            "https://example.com:6379/",
            "https://example.com:22/",
            "https://example.com:80/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://example.com/#x",
        ] {
            assert!(egress.url(bad).is_err(), "{bad}");
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_CHARS_MAX));
        assert!(egress.url(&long).is_err());
        for good in [
            "https://example.com",
            "https://example.com/",
            "https://EXAMPLE.com/hooks?a=b",
            "https://example.com:443/",
            "https://example.com:8443/hooks",
            "https://xn--exmple-cua.com/",
            "https://93.184.215.14/",
            "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8443/x",
        ] {
            assert_eq!(egress.url(good).map(drop), Ok(()), "{good}");
        }
    }

    #[test]
    fn this_machine_is_for_development_and_networks_are_an_operators_to_allow() {
        let here = Egress::new(Vec::new(), true);
        for good in ["http://127.0.0.1:40123/x", "http://[::1]:4000/", "http://localhost:4000/"] {
            assert_eq!(here.url(good).map(drop), Ok(()), "{good}");
        }
        for bad in [
            "http://127.0.0.1:5432/",
            "http://example.com/",
            "http://10.0.0.1:4000/",
            "https://10.0.0.1/",
            "http://[::ffff:10.0.0.1]:4000/",
        ] {
            assert!(here.url(bad).is_err(), "{bad}");
        }
        let allowed = ["10.20.0.0/16", "169.254.0.0/16", "fd00::/8"];
        let allowed = allowed.map(|network| network.parse().unwrap()).to_vec();
        let within = Egress::new(allowed, false);
        assert_eq!(within.url("https://10.20.3.4:8443/").map(drop), Ok(()));
        assert_eq!(within.url("https://[::ffff:a14:304]/").map(drop), Ok(()));
        for bad in [
            "http://10.20.3.4/",
            "https://10.21.0.1/",
            "https://127.0.0.1/",
            "https://169.254.169.254/",
            "https://[fd00:ec2::254]/",
            "https://10.20.3.4:5432/",
        ] {
            assert!(within.url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_vetted_each_time() {
        let inside = |ip: &str| Err(BadAddress::Inside(ip.parse().unwrap()));
        let url = "https://example.com/";
        let rebinds = saying(&[&["93.184.215.14"], &["127.0.0.1"]]);
        assert_eq!(rebinds.reachable(url).await.map(drop), Ok(()));
        assert_eq!(rebinds.reachable(url).await.map(drop), inside("127.0.0.1"));
        let mixed = saying(&[&["93.184.215.14", "::ffff:169.254.169.254"]]);
        assert_eq!(mixed.reachable(url).await.map(drop), inside("::ffff:169.254.169.254"));
        assert_eq!(saying(&[&[]]).reachable(url).await.map(drop), Err(BadAddress::Unresolved));
    }
}
