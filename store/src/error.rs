//! What can go wrong below: each variant says what it means to the caller, and keeps its source.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The named thing does not exist, or is deleted.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The change contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// What is stored cannot be what we wrote.
    #[error("{what} is corrupt: {source}")]
    Corrupt {
        /// The table, column or file.
        what: String,
        /// Why we think so.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is away or overloaded; the same call may succeed later.
    #[error("the database does not answer: {0}")]
    Busy(#[source] sqlx::Error),
    /// A row that the database refuses (a constraint, an impossible value): repeating will not help.
    #[error("the database refused the row: {0}")]
    Refused(#[source] sqlx::Error),
    /// The claim on a run was lost: another worker has it, or it was cancelled.
    #[error("the claim on run {0} is lost")]
    ClaimLost(crate::ids::RunId),
    /// The outcome of a COMMIT is unknown: it may or may not have taken place.
    #[error("the outcome of a commit is unknown: {0}")]
    CommitUnknown(#[source] sqlx::Error),
    /// The vault cannot open or seal.
    #[error(transparent)]
    Vault(#[from] crate::vault::VaultError),
    /// The settings or the machine do not allow it.
    #[error("{0}")]
    Setup(String),
    /// Any other error of the driver.
    #[error("database error: {0}")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// Whether `PostgreSQL` gave up waiting for a row that somebody holds.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        let Self::Busy(sqlx::Error::Database(error)) = self else { return false };
        error.code().as_deref() == Some("55P03")
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound("the row".into()),
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // What comes of a connection that breaks in the middle of a word, as behind a proxy.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Busy(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Corrupt { what: "a row".into(), source: Box::new(error) }
            }
            sqlx::Error::Encode(_) => Self::Refused(error),
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // Class 08 connection, 25 state of the transaction (read-only: after a failover we still talk to
                // what is a replica now), 40 rollback (deadlock, serialization), 53 resources,
                // 55P03 lock timeout, 57 operator intervention (shutdown, statement timeout).
                Some(code)
                    if code.len() == 5
                        && (["08", "25", "40", "53", "57"].contains(&&code[..2]) || code == "55P03") =>
                {
                    Self::Busy(error)
                }
                // PostgreSQL class 22 (data exception), 23 (constraint) and 54 (a text too long for its index).
                Some(code) if code.len() == 5 && ["22", "23", "54"].contains(&&code[..2]) => {
                    Self::Refused(error)
                }
                // SQLite: 5 busy, 6 locked, with extended codes above the low byte; 19 constraint, 18 too big.
                Some(code) if code.len() < 5 => match code.parse::<u32>().map(|code| code & 0xff) {
                    Ok(5 | 6 | 10 | 13) => Self::Busy(error),
                    Ok(18..=20) => Self::Refused(error),
                    _ => Self::Database(error),
                },
                _ => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// What a database says, by its code.
    #[derive(Debug)]
    struct Said(&'static str);

    impl fmt::Display for Said {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Said {}

    impl DatabaseError for Said {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn a_database_that_is_away_is_busy_and_a_bad_row_is_not() {
        let meaning = |code| StoreError::from(sqlx::Error::Database(Box::new(Said(code))));
        for code in ["08006", "25006", "40001", "40P01", "53300", "55P03", "57P01", "5", "261", "13"] {
            assert!(meaning(code).is_busy(), "{code}");
        }
        for code in ["22021", "23505", "54000", "19", "2067"] {
            assert!(matches!(meaning(code), StoreError::Refused(_)), "{code}");
        }
        for code in ["42P01", "55000", "1"] {
            assert!(matches!(meaning(code), StoreError::Database(_)), "{code}");
        }
    }
}
