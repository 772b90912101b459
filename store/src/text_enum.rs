//! Enumerations kept as text: one declaration gives the Rust type, its strings, and how both
//! databases read and write it. Adding a value means a new `CHECK`, not a new database type.

/// Declares an enumeration stored as `TEXT`.
#[macro_export]
macro_rules! text_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in the order declared.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text that is stored and shown; stable forever.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(format!(
                        "`{other}` is not one of {}",
                        [$(concat!("`", $text, "`")),+].join(", ")
                    )),
                }
            }
        }

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name where str: sqlx::Type<DB> {
            fn type_info() -> DB::TypeInfo { <str as sqlx::Type<DB>>::type_info() }
            fn compatible(ty: &DB::TypeInfo) -> bool { <str as sqlx::Type<DB>>::compatible(ty) }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name where &'static str: sqlx::Encode<'q, DB> {
            fn encode_by_ref(
                &self,
                buffer: &mut DB::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&'static str as sqlx::Encode<'q, DB>>::encode(self.as_str(), buffer)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name where String: sqlx::Decode<'r, DB> {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<String as sqlx::Decode<'r, DB>>::decode(value)?.parse::<Self>()?)
            }
        }
    };
}

text_enum! {
    /// What an outside system is (the seed's `integration_type`, and `reservation`).
    pub enum SystemType {
        /// Tills.
        Pos = "pos",
        /// Purchasing.
        Supplier = "supplier",
        /// Membership.
        Member = "member",
        /// Payment providers.
        Payment = "payment",
        /// Delivery platforms.
        Delivery = "delivery",
        /// Finance and personnel.
        Erp = "erp",
        /// Table bookings.
        Reservation = "reservation",
    }
}

text_enum! {
    /// The state of a system (the seed's `integration_status`).
    pub enum SystemStatus {
        /// Scheduled runs take place.
        Active = "active",
        /// Configured, not yet tested, or switched off.
        Inactive = "inactive",
        /// The vendor refused us or failed too often; probed once per cool-down.
        Error = "error",
        /// Being set up: manual runs only.
        Testing = "testing",
    }
}

text_enum! {
    /// The state of a run, and of a record's synchronisation (the seed's `sync_status`).
    pub enum SyncStatus {
        /// Waiting for its time or for a worker.
        Pending = "pending",
        /// A worker holds the lease.
        Syncing = "syncing",
        /// Ended, everything stored.
        Success = "success",
        /// Ended, some records in `sync_failures`.
        Partial = "partial",
        /// Ended without success.
        Failed = "failed",
        /// Ended by a person.
        Cancelled = "cancelled",
    }
}

impl SyncStatus {
    /// Whether a run in this state will never change again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Partial | Self::Failed | Self::Cancelled)
    }
}

text_enum! {
    /// Why a run exists.
    pub enum Trigger {
        /// Its slot came.
        Schedule = "schedule",
        /// A person asked.
        Manual = "manual",
        /// A webhook said that there is something.
        Webhook = "webhook",
        /// A change of ours goes to the vendor.
        Push = "push",
        /// A past range is read again.
        Backfill = "backfill",
        /// The service keeps itself in order.
        Upkeep = "upkeep",
    }
}

text_enum! {
    /// A class of service: each lane has its own queue and its own workers, which is the only
    /// priority there is.
    pub enum Lane {
        /// Webhook events to apply.
        Hooks = "hooks",
        /// A person waits.
        Interactive = "interactive",
        /// Scheduled pulls.
        Syncs = "syncs",
        /// Housekeeping.
        Upkeep = "upkeep",
    }
}

text_enum! {
    /// What a user may do.
    pub enum Role {
        /// Everything.
        Admin = "admin",
        /// Systems and records of a store.
        StoreManager = "store_manager",
        /// Supplier orders.
        WarehouseManager = "warehouse_manager",
        /// Members.
        CustomerManager = "customer_manager",
        /// Sees, and creates POS transactions.
        Staff = "staff",
    }
}

text_enum! {
    /// What a POS transaction is.
    pub enum TransactionType {
        /// Money in.
        Sale = "sale",
        /// Money back.
        Refund = "refund",
        /// Never happened.
        Void = "void",
    }
}

text_enum! {
    /// What a supplier order is.
    pub enum SupplierOrderType {
        /// Goods come.
        Purchase = "purchase",
        /// Goods go back.
        Return = "return",
    }
}

text_enum! {
    /// The state of a supplier order.
    pub enum SupplierOrderStatus {
        /// Sent to the supplier, not yet answered.
        Pending = "pending",
        /// The supplier has agreed.
        Confirmed = "confirmed",
        /// On its way.
        Shipped = "shipped",
        /// Arrived.
        Delivered = "delivered",
        /// Will not come.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// Whose word counts when a vendor and we say different things of a member.
    pub enum MemberConflict {
        /// The newer version, whoever told it.
        Newest = "newest",
        /// The vendor's, once it has told of the member.
        Vendor = "vendor",
        /// Ours, once we have told of the member.
        Ours = "ours",
    }
}

text_enum! {
    /// Who told what a member's row holds.
    pub enum MemberOrigin {
        /// Its vendor, by a pull or a webhook.
        Vendor = "vendor",
        /// A client of the API.
        Ours = "ours",
    }
}
