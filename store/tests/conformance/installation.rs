//! `installation`: the vault's canary, and the first admin.

use zhilian_sync_store::installation::{check_canary, claim_first_admin, has_canary};
use zhilian_sync_store::{Store, StoreError, Vault};

pub(crate) async fn a_wrong_master_key_is_told_before_anything_is_sealed(store: Store) {
    assert!(!has_canary(&store).await.unwrap());
    check_canary(&store).await.unwrap();
    assert!(has_canary(&store).await.unwrap());
    check_canary(&store).await.unwrap();

    let with = |keys: Vec<(u32, [u8; 32])>, current| {
        Store::new(store.pool().clone(), store.clock().clone(), Vault::new(keys, current).unwrap())
    };
    let rotated = with(vec![(1, [7; 32]), (2, [9; 32])], 2);
    check_canary(&rotated).await.unwrap();
    for wrong in [with(vec![(1, [8; 32])], 1), with(vec![(2, [7; 32])], 2)] {
        let error = check_canary(&wrong).await.unwrap_err();
        assert!(matches!(&error, StoreError::Setup(text) if text.contains("master key")), "{error:?}");
    }
}

pub(crate) async fn one_process_of_many_makes_the_first_admin(store: Store) {
    let claiming: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let mine = claim_first_admin(&mut tx, store.clock().now()).await.unwrap();
                tx.commit().await.unwrap();
                mine
            })
        })
        .collect();
    let mut winners = 0;
    for claim in claiming {
        winners += u32::from(claim.await.unwrap());
    }
    assert_eq!(winners, 1);

    // A claim that is rolled back is nobody's.
    let mut tx = store.begin().await.unwrap();
    assert!(!claim_first_admin(&mut tx, store.clock().now()).await.unwrap());
}
