//! What each address may send without being verified: a bucket that fills with time, for each address, so that
//! one that floods exhausts its own. Verified events never come by here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::settings::WebhookSettings;

/// The buckets of all addresses that have sent something of late.
pub(super) struct Addresses {
    per_second: f64,
    burst: f64,
    max: usize,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    /// Shared by those that find no place: a flood from everywhere is one flood.
    others: Bucket,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Addresses {
    pub(super) fn new(settings: &WebhookSettings) -> Self {
        let burst = f64::from(settings.unverified_burst);
        let buckets =
            Buckets { by_address: HashMap::new(), others: Bucket { tokens: burst, at: Instant::now() } };
        Self {
            per_second: f64::from(settings.unverified_per_minute) / 60.0,
            burst,
            max: settings.addresses_max,
            buckets: Mutex::new(buckets),
        }
    }

    /// Takes one from the address's bucket; `false` where it is empty.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.lock();
        let bucket = self.bucket(&mut buckets, address, now);
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }

    /// Whether there is one to take.
    pub(super) fn has(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.lock();
        let room = buckets.by_address.len() < self.max;
        match buckets.by_address.get_mut(&whole(address)) {
            Some(bucket) => self.filled(bucket, now).tokens >= 1.0,
            None => room || self.filled(&mut buckets.others, now).tokens >= 1.0,
        }
    }

    fn bucket<'a>(&self, buckets: &'a mut Buckets, address: IpAddr, now: Instant) -> &'a mut Bucket {
        let address = whole(address);
        if !buckets.by_address.contains_key(&address) {
            if buckets.by_address.len() >= self.max {
                // Who has a full bucket again is as good as unknown.
                buckets.by_address.retain(|_, bucket| self.filled(bucket, now).tokens < self.burst);
            }
            if buckets.by_address.len() >= self.max {
                return self.filled(&mut buckets.others, now);
            }
        }
        let bucket = buckets.by_address.entry(address).or_insert(Bucket { tokens: self.burst, at: now });
        self.filled(bucket, now)
    }

    /// The bucket with what time has put into it.
    fn filled<'a>(&self, bucket: &'a mut Bucket, now: Instant) -> &'a mut Bucket {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = passed.mul_add(self.per_second, bucket.tokens).min(self.burst);
        bucket.at = bucket.at.max(now);
        bucket
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address as one sender has it: whoever has an IPv6 address has a whole /64 of them.
#[must_use]
pub fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        canonical @ IpAddr::V4(_) => canonical,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addresses(per_minute: u32, burst: u32, max: usize) -> Addresses {
        let buckets = Buckets {
            by_address: HashMap::new(),
            others: Bucket { tokens: f64::from(burst), at: Instant::now() },
        };
        Addresses {
            per_second: f64::from(per_minute) / 60.0,
            burst: f64::from(burst),
            max,
            buckets: Mutex::new(buckets),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bucket_is_emptied_by_its_address_and_filled_by_time() {
        let addresses = addresses(60, 3, 10);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let now = Instant::now();
        assert!((0..3).all(|_| addresses.take(one, now)));
        assert!(!addresses.take(one, now) && !addresses.has(one, now));
        assert!(addresses.has(other, now) && addresses.take(other, now), "not the other's doing");
        let later = now + Duration::from_secs(1);
        assert!(addresses.has(one, later) && addresses.take(one, later));
        assert!(!addresses.take(one, later), "one a second");
        let much_later = now + Duration::from_hours(1);
        assert_eq!(
            (0..10).filter(|_| addresses.take(one, much_later)).count(),
            3,
            "never more than the burst"
        );
    }

    #[test]
    fn addresses_beyond_the_limit_share_one_bucket() {
        let addresses = addresses(60, 2, 2);
        let now = Instant::now();
        assert!(addresses.take(address("192.0.2.1"), now) && addresses.take(address("192.0.2.2"), now));
        assert!(addresses.take(address("192.0.2.3"), now) && addresses.take(address("192.0.2.4"), now));
        assert!(!addresses.take(address("192.0.2.5"), now) && !addresses.has(address("192.0.2.6"), now));
        assert_eq!(addresses.lock().by_address.len(), 2);
        let later = now + Duration::from_mins(1);
        assert!(addresses.take(address("192.0.2.5"), later), "those that were silent have made room");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let addresses = addresses(60, 1, 10);
        let now = Instant::now();
        assert!(addresses.take(address("2001:db8::1"), now));
        assert!(!addresses.take(address("2001:db8::ffff:2"), now));
        assert!(addresses.take(address("2001:db8:0:1::1"), now));
        assert!(addresses.take(address("::ffff:192.0.2.1"), now));
        assert!(!addresses.take(address("192.0.2.1"), now), "written in two ways");
    }
}
