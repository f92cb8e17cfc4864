//! Where a port listens and how others reach it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host, by name or number, and a port. Its text form suits `bind` and `connect` alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// In lower case, an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl Address {
    /// Reads `host:port`.
    ///
    /// # Errors
    /// With what is wrong, to stand behind the text itself.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        let (host, port) = text.rsplit_once(':').ok_or("has no port; write it as host:port")?;
        let port = match port.parse() {
            Ok(0) => return Err("has port 0, which nobody could be told of; choose one from 1 to 65535"),
            Ok(number) if !port.starts_with('+') => number,
            _ => return Err("has no port from 1 to 65535 behind its last colon"),
        };
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) if host.parse::<Ipv6Addr>().is_ok() => host,
            Some(_) => return Err("has no IPv6 address between its brackets"),
            None if host.contains(':') => {
                return Err("is an IPv6 address without brackets; write [address]:port");
            }
            None => host,
        };
        let numeric = host.parse::<IpAddr>().is_ok();
        let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        match numeric || (!host.is_empty() && host.len() < 254 && host.bytes().all(name)) {
            true => Ok(Address { host: host.to_ascii_lowercase(), port }),
            false => Err("has no host name or IP address in front of its port"),
        }
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it. A name other than `localhost` could be anywhere.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip().map_or(self.host == "localhost", |ip| ip.is_loopback())
    }

    /// Whether it means "every interface", which one can listen on but not connect to.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// Where to connect to it: "every interface" is no place, so the host is then the one of `known`, another
    /// address of the same node.
    #[must_use]
    pub fn reached_like(self, known: &Address) -> Address {
        match self.is_unspecified() {
            true => Address { host: known.host.clone(), port: self.port },
            false => self,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn every_interface_is_no_place_to_connect_to() {
        let address = |text| Address::parse(text).expect("an address");
        for (text, known, reached) in [
            ("0.0.0.0:7001", "10.0.0.4:7101", "10.0.0.4:7001"),
            ("[::]:7001", "[fd00::4]:7101", "[fd00::4]:7001"),
            ("10.0.0.5:7001", "10.0.0.4:7101", "10.0.0.5:7001"),
        ] {
            assert_eq!(address(text).reached_like(&address(known)), address(reached));
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:7001", "[::1]:7001", "node-1.example.org:65535", "localhost:1"] {
            assert_eq!(Address::parse(text).expect("an address").to_string(), text);
        }
        for text in [
            "",
            ":",
            "7001",
            "host",
            "host:",
            ":7001",
            "host:0",
            "host:65536",
            "::1:7001",
            "[::1]",
            "[x]:1",
            "a b:1",
            "h:+1",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        for (text, loopback, unspecified) in [
            ("127.0.0.1:1", true, false),
            ("127.9.9.9:1", true, false),
            ("[::1]:1", true, false),
            ("LOCALHOST:1", true, false),
            ("0.0.0.0:1", false, true),
            ("[::]:1", false, true),
            ("10.0.0.1:1", false, false),
            ("localhost.example.org:1", false, false),
        ] {
            let address = Address::parse(text).expect("an address");
            assert_eq!((address.is_loopback(), address.is_unspecified()), (loopback, unspecified), "{text}");
        }
    }
}
