//! Many small calls of one page, a few at a time: for the details of its records, or for records that are asked for
//! one by one.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::outcome::JobError;

/// How many of them are under way at the same time.
const AT_ONCE: usize = 4;

/// One of the calls.
pub(super) type SmallCall<'a, T> = BoxFuture<'a, Result<T, JobError>>;

/// The results in the order of the calls. The first error ends them all: whoever waits for the budget would only
/// wait to be read anew with the page.
pub(super) async fn all_in_order<T: Send>(calls: Vec<SmallCall<'_, T>>) -> Result<Vec<T>, JobError> {
    let numbered = calls.into_iter().enumerate().map(with_its_place);
    let mut done: Vec<(usize, T)> = stream::iter(numbered).buffer_unordered(AT_ONCE).try_collect().await?;
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

async fn with_its_place<T>((place, call): (usize, SmallCall<'_, T>)) -> Result<(usize, T), JobError> {
    Ok((place, call.await?))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn results_come_in_the_order_of_the_calls() {
        let calls = (0..10_usize).map(|number| {
            let call = async move {
                for _ in number..10 {
                    tokio::task::yield_now().await;
                }
                Ok(number)
            };
            call.boxed()
        });
        assert_eq!(all_in_order(calls.collect()).await.unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_error_does_not_wait_for_the_calls_before_it() {
        let refused = async { Err::<(), _>(JobError::retry("rate_limited", "fewer calls".to_owned())) };
        let calls = vec![std::future::pending().boxed(), refused.boxed()];
        assert_eq!(all_in_order(calls).await.unwrap_err().code, "rate_limited");
    }
}
