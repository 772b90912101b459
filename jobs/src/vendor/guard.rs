//! Where this service may call: public addresses, and the private networks that the operator names in
//! `vendors.allow_networks`. A system's address comes from a person or from a vendor's redirect, and
//! must not reach the metadata service, the database or the machine itself. Checked in three places,
//! because none sees everything: the URL (literal addresses never reach the resolver), the resolver
//! (so the address checked is the address connected to), and every redirect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use url::Host;

/// A call follows so many redirects.
const REDIRECTS_MAX: usize = 3;

/// The private networks that may be called, cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allow(Arc<[Network]>);

/// An address, how many of its leading bits count, and the only port where one is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
    port: Option<u16>,
}

/// A call that the guard refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// An address that is private, or no address of a vendor's at all.
    #[error("`{0}` is not a public address")]
    Address(String),
    /// Another scheme, or a user name in the address.
    #[error("`{0}` is not an address of the form `https://host/path`")]
    Form(String),
    /// A redirect to another host would carry our credentials there.
    #[error("the vendor redirects to another host, `{0}`")]
    OtherHost(String),
    /// A redirect without encryption.
    #[error("the vendor redirects from https to http")]
    Downgrade,
    /// A circle, or nearly.
    #[error("the vendor redirects more than {REDIRECTS_MAX} times")]
    TooMany,
}

impl Allow {
    /// Reads networks such as `10.20.0.0/16`, single addresses, or one port of an address.
    pub(crate) fn parse(networks: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let mistake = || format!("`{text}` is not a network; expected one such as `10.20.0.0/16`");
            if let Ok(one) = text.trim().parse::<SocketAddr>() {
                let bits = if one.is_ipv4() { 32 } else { 128 };
                return Ok(Network { address: one.ip(), bits, port: Some(one.port()) });
            }
            let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
            let address: IpAddr = address.trim().parse().map_err(|_| mistake())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), |bits| bits.trim().parse().map_err(|_| mistake()))?;
            if bits > most { Err(mistake()) } else { Ok(Network { address, bits, port: None }) }
        };
        networks.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address may be called; a port that is not known is not a named one.
    fn permits(&self, address: IpAddr, port: Option<u16>) -> bool {
        let plain = address.to_canonical();
        let named = |network: &Network| network.port.is_none() || network.port == port;
        is_public(address) || self.0.iter().any(|network| named(network) && network.contains(plain))
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// Whether the address is one of the open internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public_v4(v4);
            }
            let part = v6.segments();
            let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            match part {
                // 6to4 and NAT64 carry an IPv4 address inside: look at that.
                [0x2002, high, low, ..] | [0x64, 0xff9b, 0, _, _, _, high, low] => {
                    is_public_v4(embedded(high, low))
                }
                // Local NAT64, Teredo, documentation, ORCHID.
                [0x64, 0xff9b, ..] | [0x2001, 0 | 0xdb8, ..] => false,
                [0x2001, second, ..] if (0x10..=0x2f).contains(&second) => false,
                [0x3fff, second, ..] if second < 0x1000 => false,
                // 2000::/3 alone is global unicast: no ::1, fe80::/10, fc00::/7, ff00::/8, ::a.b.c.d.
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..] // shared by carriers; 100.100.100.200 is Alibaba's metadata service
            | [169, 254, ..] // link local; 169.254.169.254 is the metadata service of most clouds
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

/// Refuses a URL by its scheme, its form and its literal address.
pub(crate) fn check_url(url: &Url, allow: &Allow) -> Result<(), Refused> {
    if !matches!(url.scheme(), "https" | "http") || !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Form(format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())));
    }
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(v4)) => v4.into(),
        Some(Host::Ipv6(v6)) => v6.into(),
        Some(Host::Domain(_)) => return Ok(()),
        None => return Err(Refused::Form(url.scheme().to_owned())),
    };
    if allow.permits(address, url.port_or_known_default()) {
        Ok(())
    } else {
        Err(Refused::Address(address.to_string()))
    }
}

/// Resolves names for the client: one private answer poisons the name.
pub(crate) struct Resolver(pub(crate) Allow);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = self.0.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            if found.iter().any(|address| !allow.permits(address.ip(), None)) {
                return Err(Box::new(Refused::Address(host)) as _);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Redirects stay on the host, because named headers and bodies with credentials go along.
pub(crate) fn redirects(allow: Allow) -> Policy {
    Policy::custom(move |attempt: Attempt<'_>| {
        match check_redirect(attempt.previous(), attempt.url(), &allow) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        }
    })
}

fn check_redirect(previous: &[Url], next: &Url, allow: &Allow) -> Result<(), Refused> {
    if previous.len() > REDIRECTS_MAX {
        return Err(Refused::TooMany);
    }
    check_url(next, allow)?;
    let Some(from) = previous.last() else {
        return Ok(());
    };
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(Refused::Downgrade);
    }
    let upgraded = from.scheme() == "http" && next.scheme() == "https" && from.host() == next.host();
    if from.origin() == next.origin() || upgraded {
        return Ok(());
    }
    Err(Refused::OtherHost(next.host_str().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(networks: &[&str]) -> Allow {
        Allow::parse(&networks.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("223.5.5.5", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.15.0.1", true),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.100.100.200", false),
            ("100.128.0.1", true),
            ("0.0.0.0", false),
            ("192.0.0.170", false),
            ("192.0.2.1", false),
            ("192.0.1.1", true),
            ("192.88.99.1", false),
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.51.100.7", false),
            ("203.0.113.7", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b::808:808", true),
            ("64:ff9b:1::808:808", false),
            ("2002:7f00:1::", false),
            ("2002:808:808::1", true),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2001:10::1", false),
            ("2001:2f::1", false),
            ("2001:4860:4860::8888", true),
            ("3fff::1", false),
            ("2606:4700::1", true),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn urls_are_refused_by_scheme_form_and_literal_address() {
        let strict = Allow::default();
        for (url, refused) in [
            ("https://api.example.com/v1", false),
            ("http://8.8.8.8/", false),
            ("http://127.0.0.1:8000/", true),
            ("http://0x7f.1/", true),
            ("http://2852039166/", true),
            ("http://0177.0.0.1/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:169.254.169.254]/", true),
            ("http://user:secret@example.com/", true),
            ("http://user@example.com/", true),
            ("file:///etc/passwd", true),
            ("ftp://example.com/", true),
            ("gopher://example.com/", true),
        ] {
            assert_eq!(check_url(&url.parse().unwrap(), &strict).is_err(), refused, "{url}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_a_password() {
        let url = "http://user:secret@example.com/".parse().unwrap();
        assert!(!check_url(&url, &Allow::default()).unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn a_named_port_is_let_through_and_no_other() {
        let allow = allow(&["127.0.0.1:8123", "[::1]:8123"]);
        for (url, permitted) in [
            ("http://127.0.0.1:8123/v1", true),
            ("http://[::1]:8123/v1", true),
            ("http://[::ffff:127.0.0.1]:8123/v1", true),
            ("http://127.0.0.1:8124/v1", false),
            ("http://127.0.0.1/v1", false),
            ("http://127.0.0.2:8123/v1", false),
        ] {
            assert_eq!(check_url(&url.parse().unwrap(), &allow).is_ok(), permitted, "{url}");
        }
    }

    #[test]
    fn named_networks_are_let_through_and_no_others() {
        let allow = allow(&["10.20.0.0/16", "127.0.0.1", "fd00::/8"]);
        for (address, permitted) in [
            ("10.20.255.1", true),
            ("10.21.0.1", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::ffff:10.20.0.1", true),
            ("fd12::1", true),
            ("fe80::1", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(allow.permits(address.parse().unwrap(), Some(443)), permitted, "{address}");
        }
        assert!(self::allow(&["0.0.0.0/0"]).permits("10.0.0.1".parse().unwrap(), Some(443)));
        for text in ["10.20.0.0/33", "10.20", "intranet", "10.0.0.0/x", "::1/129"] {
            let problem = Allow::parse(&[text.to_owned()]).unwrap_err();
            assert!(problem.contains(text), "{problem}");
        }
    }

    #[test]
    fn redirects_stay_on_the_host() {
        let allow = allow(&["127.0.0.1"]);
        let url = |text: &str| text.parse::<Url>().unwrap();
        let from = |text: &str| vec![url(text)];
        let check = |from: &[Url], to: &str| check_redirect(from, &url(to), &allow);
        assert_eq!(check(&from("https://a.example/x"), "https://a.example/y"), Ok(()));
        assert_eq!(check(&from("http://a.example/x"), "https://a.example/x"), Ok(()));
        assert_eq!(check(&from("https://a.example/x"), "http://a.example/x"), Err(Refused::Downgrade));
        assert_eq!(
            check(&from("https://a.example"), "https://b.example"),
            Err(Refused::OtherHost("b.example".into()))
        );
        assert!(matches!(
            check(&from("https://a.example"), "https://a.example:8443"),
            Err(Refused::OtherHost(_))
        ));
        assert!(matches!(
            check(&from("http://127.0.0.1:1/"), "http://169.254.169.254/"),
            Err(Refused::Address(_))
        ));
        let four = vec![url("https://a.example/"); 4];
        assert_eq!(check(&four, "https://a.example/"), Err(Refused::TooMany));
    }
}
