//! The shop behind the simulated till: its sales, and how they come about and change. No I/O and no
//! time of its own, so a seed and a clock decide everything.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::SimulatorSettings;

/// Dishes and their prices in fen.
const MENU: [(&str, i64); 8] = [
    ("牛肉面", 1480),
    ("红烧牛肉面", 2880),
    ("小笼包", 1800),
    ("凉拌黄瓜", 1200),
    ("酸梅汤", 800),
    ("豆浆", 500),
    ("卤蛋", 300),
    ("米饭", 200),
];

/// How guests pay.
const PAYMENTS: [&str; 4] = ["wechat", "alipay", "cash", "card"];

/// One event in so many changes an earlier sale instead of making one.
const CHANGE_ONE_IN: u64 = 6;

/// Only so many of the latest sales are still changed.
const CHANGEABLE: u64 = 100;

/// What a record of the till is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SaleKind {
    /// Money in.
    Sale,
    /// Money back.
    Refund,
    /// Never happened.
    Void,
}

impl SaleKind {
    /// The text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Refund => "refund",
            Self::Void => "void",
        }
    }
}

/// A sale as it is now, for comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What it is now.
    pub kind: SaleKind,
    /// Its amount now.
    pub total_fen: i64,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A sale as it goes over the wire.
#[expect(clippy::struct_field_names, reason = "the names are those of the wire")]
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sale {
    pub(super) sale_id: String,
    order_no: String,
    kind: SaleKind,
    shop: String,
    subtotal_fen: i64,
    tax_fen: i64,
    discount_fen: i64,
    total_fen: i64,
    pay: &'static str,
    phone: Option<String>,
    member: Option<String>,
    lines: Vec<Line>,
    #[serde(serialize_with = "china_seconds")]
    sold_at: DateTime<Utc>,
    #[serde(serialize_with = "china_millis")]
    updated_at: DateTime<Utc>,
}

impl Sale {
    pub(super) fn is(&self, kind: SaleKind) -> bool {
        self.kind == kind
    }

    /// What the vendor tells of a sale that it voids.
    pub(super) fn id_and_time(&self) -> Value {
        json!({"sale_id": self.sale_id, "updated_at": in_china(self.updated_at).to_rfc3339_opts(SecondsFormat::Millis, false)})
    }
}

/// What became of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Made,
    Changed,
    Voided,
}

/// Something that happened at the till, and the sale as it was then.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub(super) change: Change,
    pub(super) sale: Sale,
}

#[derive(Debug, Clone, Serialize)]
struct Line {
    name: &'static str,
    qty: i64,
    price_fen: i64,
}

/// One page of the list.
#[derive(Debug)]
pub(super) struct SalesPage {
    pub(super) items: Vec<Sale>,
    pub(super) pages: u64,
}

/// The sales, in the order of their ids.
#[derive(Debug)]
pub(super) struct Shop {
    code: String,
    chance: Chance,
    sales: BTreeMap<String, Sale>,
    made: u64,
    last_change: DateTime<Utc>,
    /// What nobody has posted yet; kept only while somebody posts.
    happened: Option<VecDeque<Happening>>,
}

impl Shop {
    /// A shop with its history, which ends just before `now`.
    pub(super) fn open(settings: &SimulatorSettings, now: DateTime<Utc>) -> Self {
        let span = TimeDelta::from_std(settings.history_span).unwrap_or_default();
        let mut shop = Self {
            code: settings.shop_id.clone(),
            chance: Chance(settings.seed),
            sales: BTreeMap::new(),
            made: 0,
            last_change: now - span,
            happened: None,
        };
        let history = i32::try_from(settings.history).unwrap_or(i32::MAX);
        for sale in 0..history {
            let at = now - span + span * sale / history;
            // Whole milliseconds, as a vendor's database has.
            shop.sell(DateTime::from_timestamp_millis(at.timestamp_millis()).unwrap_or(at));
        }
        shop
    }

    pub(super) fn last_change(&self) -> DateTime<Utc> {
        self.last_change
    }

    /// From now on, what happens is kept until it is taken.
    pub(super) fn keep_what_happens(&mut self) {
        self.happened.get_or_insert_default();
    }

    /// What has happened since it was last asked for, in order.
    pub(super) fn take_happened(&mut self) -> VecDeque<Happening> {
        self.happened.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn ledger(&self) -> BTreeMap<String, LedgerEntry> {
        let entry = |sale: &Sale| LedgerEntry {
            kind: sale.kind,
            total_fen: sale.total_fen,
            updated_at: sale.updated_at,
        };
        self.sales.iter().map(|(id, sale)| (id.clone(), entry(sale))).collect()
    }

    /// The sales that last changed in `[since, before)`; pages count from 1.
    pub(super) fn page(
        &self,
        window: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
        page: u64,
        page_size: usize,
    ) -> SalesPage {
        let (since, before) = window;
        let inside = |sale: &&Sale| {
            since.is_none_or(|since| sale.updated_at >= since)
                && before.is_none_or(|before| sale.updated_at < before)
        };
        let all: Vec<&Sale> = self.sales.values().filter(inside).collect();
        let skip = usize::try_from(page - 1).unwrap_or(usize::MAX).saturating_mul(page_size);
        let items = all.iter().skip(skip).take(page_size).map(|sale| (*sale).clone()).collect();
        SalesPage { items, pages: all.len().div_ceil(page_size).max(1) as u64 }
    }

    /// Whatever happens next: mostly a sale, now and then a change to an earlier one.
    pub(super) fn trade(&mut self, now: DateTime<Utc>) {
        if self.chance.one_in(CHANGE_ONE_IN) {
            let back = self.chance.below(self.made.min(CHANGEABLE));
            let id = sale_id(self.made - back);
            match self.chance.below(3) {
                0 => self.void(&id, now),
                1 => self.refund(&id, now).is_some(),
                _ => self.correct(&id, now),
            };
        } else {
            self.sell(now);
        }
    }

    /// Makes one sale and returns its id.
    pub(super) fn sell(&mut self, now: DateTime<Utc>) -> String {
        let lines: Vec<Line> = (0..=self.chance.below(3))
            .map(|_| {
                let (name, price_fen) = *self.chance.pick(&MENU);
                let qty = if self.chance.one_in(4) { 2 } else { 1 };
                Line { name, qty, price_fen }
            })
            .collect();
        let subtotal_fen = lines.iter().map(|line| line.qty * line.price_fen).sum::<i64>();
        let discount_fen = if self.chance.one_in(5) { subtotal_fen / 10 } else { 0 };
        let guest = self.chance.below(100_000_000);
        let is_member = self.chance.one_in(3);
        let order_no = format!("A{}", 1000 + self.made + 1);
        let pay = *self.chance.pick(&PAYMENTS);
        self.put(now, |sale_id, shop, at| Sale {
            sale_id,
            order_no,
            kind: SaleKind::Sale,
            shop,
            subtotal_fen,
            tax_fen: 0,
            discount_fen,
            total_fen: subtotal_fen - discount_fen,
            pay,
            phone: is_member.then(|| format!("138{guest:08}")),
            member: is_member.then(|| format!("M-{:04}", guest % 10_000)),
            lines,
            sold_at: at,
            updated_at: at,
        })
    }

    /// A later discount of a tenth of what is still to pay.
    pub(super) fn correct(&mut self, sale_id: &str, now: DateTime<Utc>) -> bool {
        self.change(sale_id, now, Change::Changed, |sale| {
            let off = (sale.total_fen / 10).max(1);
            sale.discount_fen += off;
            sale.total_fen -= off;
        })
    }

    /// The sale never happened.
    pub(super) fn void(&mut self, sale_id: &str, now: DateTime<Utc>) -> bool {
        self.change(sale_id, now, Change::Voided, |sale| sale.kind = SaleKind::Void)
    }

    /// The guest gets the money back: a record of its own with the same order number.
    pub(super) fn refund(&mut self, of: &str, now: DateTime<Utc>) -> Option<String> {
        let original = self.sales.get(of).filter(|sale| sale.kind == SaleKind::Sale)?.clone();
        Some(self.put(now, |sale_id, _, at| Sale {
            sale_id,
            kind: SaleKind::Refund,
            sold_at: at,
            updated_at: at,
            ..original
        }))
    }

    fn put(
        &mut self,
        now: DateTime<Utc>,
        make: impl FnOnce(String, String, DateTime<Utc>) -> Sale,
    ) -> String {
        let at = self.moment(now);
        self.made += 1;
        let id = sale_id(self.made);
        let sale = make(id.clone(), self.code.clone(), at);
        self.note(Change::Made, &sale);
        self.sales.insert(id.clone(), sale);
        id
    }

    /// Changes a record that is still a sale. No two versions of a sale have the same time.
    fn change(
        &mut self,
        sale_id: &str,
        now: DateTime<Utc>,
        what: Change,
        change: impl FnOnce(&mut Sale),
    ) -> bool {
        let Some(mut sale) = self.sales.get(sale_id).filter(|sale| sale.kind == SaleKind::Sale).cloned()
        else {
            return false;
        };
        change(&mut sale);
        sale.updated_at = self.moment(now.max(sale.updated_at + TimeDelta::milliseconds(1)));
        self.note(what, &sale);
        self.sales.insert(sale_id.to_owned(), sale);
        true
    }

    fn note(&mut self, change: Change, sale: &Sale) {
        if let Some(happened) = &mut self.happened {
            happened.push_back(Happening { change, sale: sale.clone() });
        }
    }

    /// Times never run backwards, even if the machine's clock is set back.
    fn moment(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.last_change = self.last_change.max(now);
        self.last_change
    }
}

fn sale_id(number: u64) -> String {
    format!("S-{number:06}")
}

/// Chance by a seed (SplitMix64): the same numbers on every machine and with every release.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).expect("it is below a slice's length")]
    }
}

/// The till's own zone, which knows no daylight saving.
fn in_china(time: DateTime<Utc>) -> DateTime<FixedOffset> {
    time.with_timezone(&FixedOffset::east_opt(8 * 3600).expect("eight hours is an offset"))
}

fn china_seconds<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&in_china(*time).to_rfc3339_opts(SecondsFormat::Secs, false))
}

fn china_millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&in_china(*time).to_rfc3339_opts(SecondsFormat::Millis, false))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::simulator::FaultPlan;

    fn settings(seed: u64) -> SimulatorSettings {
        SimulatorSettings {
            shop_name: "面馆".into(),
            shop_id: "shop-1".into(),
            api_key: "k".into(),
            seed,
            pace: None,
            history: 50,
            history_span: Duration::from_secs(100),
            faults: FaultPlan::default(),
        }
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_240_000, 0).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_sales() {
        let (mut one, mut same, mut other) = (
            Shop::open(&settings(7), noon()),
            Shop::open(&settings(7), noon()),
            Shop::open(&settings(8), noon()),
        );
        for second in 0..500 {
            let at = noon() + TimeDelta::seconds(second);
            one.trade(at);
            same.trade(at);
            other.trade(at);
        }
        assert_eq!(one.ledger(), same.ledger());
        assert_ne!(one.ledger(), other.ledger());
        let kinds: Vec<SaleKind> = one.ledger().values().map(|entry| entry.kind).collect();
        for kind in [SaleKind::Sale, SaleKind::Refund, SaleKind::Void] {
            assert!(kinds.contains(&kind), "there is no {kind:?} among {} records", kinds.len());
        }
    }

    #[test]
    fn amounts_add_up_and_times_never_run_backwards() {
        let mut shop = Shop::open(&settings(1), noon());
        for second in 0..300 {
            // The machine's clock is set back by a minute in the middle.
            let back = if second > 150 { 60 } else { 0 };
            let before = shop.last_change();
            shop.trade(noon() + TimeDelta::seconds(second - back));
            assert!(shop.last_change() >= before);
        }
        for sale in shop.sales.values() {
            let lines = sale.lines.iter().map(|line| line.qty * line.price_fen).sum::<i64>();
            assert_eq!(sale.subtotal_fen, lines, "{}", sale.sale_id);
            assert_eq!(sale.total_fen, sale.subtotal_fen + sale.tax_fen - sale.discount_fen);
            assert!(sale.total_fen > 0 && sale.updated_at >= sale.sold_at);
        }
    }

    #[test]
    fn history_lies_before_the_start() {
        let shop = Shop::open(&settings(3), noon());
        assert_eq!(shop.sales.len(), 50);
        assert_eq!(shop.sales["S-000001"].sold_at, noon() - TimeDelta::seconds(100));
        assert!(shop.last_change() < noon());
    }
}
