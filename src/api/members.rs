//! Members of loyalty programmes: handed in by clients of the seed, pulled from vendors, and pushed to those that
//! take them.
//!
//! Two may speak of a member: its vendor and a client of ours. Whose word counts is the system's
//! `member_conflict`; what a client says of a member that the rule keeps changes nothing and answers what is there.

use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;
use zhilian_sync_jobs::Kind;
use zhilian_sync_jobs::enqueue::{self, Enqueued, Wish};
use zhilian_sync_store::member_syncs::{self, Filter, IncomingMember, MemberSync, OurMember};
use zhilian_sync_store::record_batches::Batch;
use zhilian_sync_store::records_handed_in::{Change, HandedIn};
use zhilian_sync_store::{
    MemberOrigin, Store, StoreError, SyncStatus, SystemId, SystemType, Trigger, Tx, audit_logs, sync_logs,
};

use super::access::in_scope;
use super::answer::{Answer, Found};
use super::batch::{BatchAnswer, BatchBody};
use super::body::{Body, request_body};
use super::caller::Caller;
use super::handing_in::{self, Amounts, HandIn, Handed};
use super::page::{Limit, Page, Wanted};
use super::problem::Problem;
use super::runs::RunAnswer;
use super::values::{Choice, Money, Text, Time, Whole};
use super::{Tag, systems};
use crate::app::App;

/// The operations of this file.
pub struct Members(pub App);

/// Points, in either direction.
type Points = Whole<-1_000_000_000_000, 1_000_000_000_000>;

request_body! {
    /// A member; what is absent stays as it is.
    accepts_unknown pub struct NewMember {
        /// The number of the member; a second member of this number is the same one.
        member_id: Text<128>,
        /// The vendor's own id of it.
        external_id: Option<Text<128>>,
        /// Their telephone number.
        phone: Option<Text<64>>,
        /// What they are called.
        name: Option<Text<200>>,
        /// Their address for mails.
        email: Option<Text<254>>,
        /// Which level they have reached.
        level: Option<Text<100>>,
        /// What they have collected.
        points: Option<Points>,
        /// What they have paid in.
        balance: Option<Money>,
        /// The currency of the balance, by default the system's.
        currency: Option<Text<3>>,
    }
}

/// A member.
#[derive(Debug, Object)]
#[oai(rename = "Member")]
pub struct MemberAnswer {
    /// Our id.
    pub id: String,
    /// The system whose member it is.
    pub system_id: String,
    /// The store.
    pub store_id: Option<String>,
    /// The number of the member.
    pub member_id: String,
    /// The vendor's own id of it.
    pub external_member_id: Option<String>,
    /// Their telephone number.
    pub phone: Option<String>,
    /// What they are called.
    pub name: Option<String>,
    /// Their address for mails.
    pub email: Option<String>,
    /// Which level they have reached.
    pub level: Option<String>,
    /// What they have collected.
    pub points: i64,
    /// What they have paid in.
    pub balance: Money,
    /// The currency of the balance.
    pub currency: String,
    /// `pending` until the vendor has been told, `failed` when it would not be.
    pub sync_status: Choice<SyncStatus>,
    /// Why the last push failed.
    pub push_error: Option<String>,
    /// When the vendor was told last.
    pub pushed_at: Option<Time>,
    /// Who told what is shown.
    pub origin: Choice<MemberOrigin>,
    /// When they last did something.
    pub last_activity: Option<Time>,
    /// When we heard of it first.
    pub created_at: Time,
    /// When it changed last.
    pub updated_at: Time,
    /// The run that wrote it; null for one that was handed in.
    pub sync_log_id: Option<String>,
    /// Fields of the request that mean nothing here; they are kept with the raw record.
    #[oai(skip_serializing_if_is_none)]
    pub ignored_fields: Option<Vec<String>>,
}

impl MemberAnswer {
    fn new(row: MemberSync) -> Self {
        Self {
            id: row.id.to_string(),
            system_id: row.system_id.to_string(),
            store_id: row.store_id,
            member_id: row.member_id,
            external_member_id: row.external_member_id,
            phone: row.phone,
            name: row.name,
            email: row.email,
            level: row.level,
            points: row.points,
            balance: Money::of(row.balance, row.currency),
            currency: row.currency.to_string(),
            sync_status: Choice(row.sync_status),
            push_error: row.push_error,
            pushed_at: row.pushed_at.map(Time),
            origin: Choice(row.origin),
            last_activity: row.last_activity.map(Time),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            sync_log_id: row.sync_log_id.map(|id| id.to_string()),
            ignored_fields: None,
        }
    }
}

#[OpenApi]
impl Members {
    /// Hand in a member
    ///
    /// Creates it, or changes what is told of it. A vendor that takes members is told afterwards.
    #[oai(
        path = "/integrations/member/:system_id/sync",
        method = "post",
        operation_id = "create_member",
        tag = "Tag::Members"
    )]
    async fn create_member(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: Body<NewMember>,
    ) -> Result<Found<MemberAnswer>, Problem> {
        let context = self.0.context();
        let ignored = body.ignored_fields.clone();
        let id = handing_in::one(context, &caller, system_id.0, body).await?;
        let mut answer = MemberAnswer::new(member_syncs::get(&context.store, id).await?);
        answer.ignored_fields = (!ignored.is_empty()).then_some(ignored);
        Ok(Answer(answer))
    }

    /// Hand in many members
    ///
    /// Each is answered on its own: the good ones are stored, the others explained.
    #[oai(
        path = "/integrations/member/:system_id/members/batch",
        method = "post",
        operation_id = "create_members",
        tag = "Tag::Members"
    )]
    async fn create_members(
        &self,
        caller: Caller,
        system_id: Path<Uuid>,
        body: BatchBody<NewMember>,
    ) -> Result<Found<BatchAnswer>, Problem> {
        handing_in::many(self.0.context(), &caller, system_id.0, body).await.map(Answer)
    }

    /// List members
    #[oai(
        path = "/integrations/member/members",
        method = "get",
        operation_id = "list_members",
        tag = "Tag::Members"
    )]
    #[expect(clippy::too_many_arguments, reason = "a parameter of the request is one of the function")]
    async fn list_members(
        &self,
        caller: Caller,
        store_id: Query<Option<Text<64>>>,
        system_id: Query<Option<Uuid>>,
        sync_status: Query<Option<Choice<SyncStatus>>>,
        level: Query<Option<Text<100>>>,
        phone: Query<Option<Text<64>>>,
        member_id: Query<Option<Text<128>>>,
        from: Query<Option<Time>>,
        to: Query<Option<Time>>,
        limit: Query<Option<Limit>>,
        cursor: Query<Option<String>>,
    ) -> Result<Page<MemberAnswer>, Problem> {
        let wanted = Wanted::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            scope: caller.scope(),
            store_id: store_id.0.as_ref().map(|text| text.0.as_str()),
            system_id: system_id.0.map(SystemId),
            sync_status: sync_status.0.map(|choice| choice.0),
            level: level.0.as_ref().map(|text| text.0.as_str()),
            phone: phone.0.as_ref().map(|text| text.0.as_str()),
            member_id: member_id.0.as_ref().map(|text| text.0.as_str()),
            from: from.0.map(|time| time.0),
            to: to.0.map(|time| time.0),
            before: wanted.after,
            limit: u32::try_from(wanted.rows()).unwrap_or(u32::MAX),
        };
        let rows = member_syncs::list(self.0.store(), &filter).await?;
        let position = |row: &MemberSync| (row.created_at, row.id);
        Ok(Page::new(rows, wanted, &caller.origin.uri, position, MemberAnswer::new))
    }

    /// Show a member
    #[oai(
        path = "/integrations/member/members/:record_id",
        method = "get",
        operation_id = "show_member",
        tag = "Tag::Members"
    )]
    async fn show_member(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Found<MemberAnswer>, Problem> {
        visible(self.0.store(), &caller, record_id.0).await.map(|row| Answer(MemberAnswer::new(row)))
    }

    /// Push a member
    ///
    /// Tells its vendor of it now, whatever became of the pushes before.
    #[oai(
        path = "/integrations/member/members/:record_id/push",
        method = "post",
        operation_id = "push_member",
        tag = "Tag::Members"
    )]
    async fn push_member(
        &self,
        caller: Caller,
        record_id: Path<Uuid>,
    ) -> Result<Answer<202, RunAnswer>, Problem> {
        let context = self.0.context();
        let row = visible(&context.store, &caller, record_id.0).await?;
        // A deleted system pushes nothing any more.
        let system = systems::visible(context, &caller, row.system_id.0).await?;
        if !enqueue::takes_members(context, &system) {
            let detail = format!("the vendor of system `{}` takes no members", system.name);
            return Err(Problem::conflict("cannot_push", detail));
        }
        let wish = Wish::push(system.id, row.id, Trigger::Manual, Some(caller.user_id));
        let mut tx = context.store.begin().await?;
        if !member_syncs::ask_for_push(&mut tx, row.id).await? {
            return Err(Problem::not_found(format_args!("member `{}`", row.id)));
        }
        let enqueued = enqueue::enqueue(context, &mut tx, &wish).await?;
        let id = row.id.to_string();
        let mut entry = caller.audit("member.push", "member", &id);
        entry.store_id = row.store_id.as_deref();
        audit_logs::insert(&mut tx, context.clock(), entry).await?;
        tx.commit().await?;
        enqueue::ring(context, Kind::PushMember.lane(Trigger::Manual), &[enqueued]).await;
        let run = enqueued.run().ok_or_else(Problem::internal)?;
        Ok(Answer(RunAnswer::new(&sync_logs::get(&context.store, run).await?)))
    }
}

/// The member, if it exists for this caller.
async fn visible(store: &Store, caller: &Caller, id: Uuid) -> Result<MemberSync, Problem> {
    let row = member_syncs::get(store, id).await?;
    let is_there = in_scope(caller.scope(), row.store_id.as_deref()) && row.deleted_at.is_none();
    if is_there { Ok(row) } else { Err(Problem::not_found(format_args!("member `{id}`"))) }
}

impl HandIn for NewMember {
    type Incoming = OurMember;

    const SYSTEM_TYPE: SystemType = SystemType::Member;
    const ID_FIELD: &'static str = "member_id";
    const ENTITY: &'static str = "member";
    const ACTIONS: [&'static str; 3] = ["member.create", "member.update", "member.batch"];

    fn external_id(&self) -> &str {
        &self.member_id.0
    }

    fn incoming(self, of: &Handed<'_>, raw: String) -> Result<Self::Incoming, Problem> {
        let currency = of.currency(self.currency)?;
        let mut amounts = Amounts::of(currency);
        let balance = self.balance.map(|balance| amounts.minor("balance", Some(balance)));
        amounts.finish()?;
        let member = IncomingMember {
            member_id: self.member_id.0,
            external_member_id: self.external_id.map(|text| text.0),
            phone: self.phone.map(|text| text.0),
            name: self.name.map(|text| text.0),
            email: self.email.map(|text| text.0),
            level: self.level.map(|text| text.0),
            points: self.points.map(|points| points.0),
            balance,
            currency,
            last_activity: None,
            shop: None,
            version_at: None,
            observed_at: None,
            deleted: false,
            raw,
        };
        Ok(OurMember { member, rule: of.system.member_conflict, to_push: of.takes_members })
    }

    async fn write(
        tx: &mut Tx,
        batch: Batch<'_>,
        records: Vec<Self::Incoming>,
    ) -> Result<Vec<HandedIn>, StoreError> {
        member_syncs::hand_in(tx, batch, records).await
    }

    async fn enqueue(tx: &mut Tx, of: &Handed<'_>, told: &[HandedIn]) -> Result<Vec<Enqueued>, StoreError> {
        let mut enqueued = Vec::new();
        if !of.takes_members {
            return Ok(enqueued);
        }
        for one in told {
            if let HandedIn::Stored { id, change: Change::Created | Change::Updated } = one {
                let wish = Wish::push(of.system.id, *id, Trigger::Push, Some(of.caller.user_id));
                enqueued.push(enqueue::enqueue(of.context, tx, &wish).await?);
            }
        }
        Ok(enqueued)
    }
}
