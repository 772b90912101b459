//! The secrets that let a caller in: access tokens that the vendor gives, and keys that a person enters.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

/// The secrets of one vendor.
#[derive(Debug, Default)]
pub struct Tokens {
    given: BTreeMap<String, DateTime<Utc>>,
    made: u64,
    /// How often keys were made anew.
    renewed: u64,
}

impl Tokens {
    /// Gives a new access token that is good so long. The others go on, or end at once where the vendor
    /// has only one at a time.
    pub fn give(&mut self, now: DateTime<Utc>, lifetime: TimeDelta, ends_others: bool) -> String {
        if ends_others {
            self.given.clear();
        }
        self.made += 1;
        let token = format!("simulated-token-{:06}", self.made);
        self.given.insert(token.clone(), now + lifetime);
        token
    }

    /// Whether an access token is good now.
    pub fn accepts(&self, token: &str, now: DateTime<Utc>) -> bool {
        self.given.get(token).is_some_and(|until| now < *until)
    }

    /// Every access token that is good now: for vendors to whom a token is not sent but signs.
    pub fn good(&self, now: DateTime<Utc>) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |(_, until)| now < **until).map(|(token, _)| token.as_str())
    }

    /// A key that a person enters, which stays the same until the tokens are made to expire.
    pub fn key(&self, name: &str) -> String {
        if self.renewed == 0 {
            return format!("simulated-{name}");
        }
        format!("simulated-{name}-{}", self.renewed + 1)
    }

    /// Ends every access token that was given.
    pub(crate) fn end_given(&mut self) {
        self.given.clear();
    }

    /// Makes every key of [`Tokens::key`] anew.
    pub(crate) fn renew_keys(&mut self) {
        self.renewed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_its_time_or_until_the_next_one_ends_it() {
        let now = DateTime::from_timestamp(1_767_240_000, 0).unwrap();
        let mut tokens = Tokens::default();
        let first = tokens.give(now, TimeDelta::seconds(60), true);
        assert!(tokens.accepts(&first, now) && !tokens.accepts(&first, now + TimeDelta::seconds(60)));
        let second = tokens.give(now, TimeDelta::seconds(60), false);
        assert!(tokens.accepts(&first, now) && tokens.accepts(&second, now));
        assert!(tokens.good(now).eq([&first, &second]));
        let third = tokens.give(now, TimeDelta::seconds(60), true);
        assert!(!tokens.accepts(&second, now) && tokens.accepts(&third, now));
        tokens.end_given();
        assert!(!tokens.accepts(&third, now));
        let key = tokens.key("key");
        tokens.renew_keys();
        assert_ne!(key, tokens.key("key"));
    }
}
