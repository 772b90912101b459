//! Records as no vendor writes them: what happened, in neutral words. Amounts are whole minor units.

use chrono::{DateTime, Utc};

/// What amounts are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// Fen.
    Cny,
    /// Cents.
    Usd,
}

impl Currency {
    /// The code of ISO 4217.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Cny => "CNY",
            Self::Usd => "USD",
        }
    }
}

/// What the records of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Sales, refunds and voids.
    Sales,
    /// Orders at suppliers.
    SupplierOrders,
    /// Guests who signed up.
    Members,
    /// Payments.
    Payments,
    /// Money paid back, where the vendor lists it apart.
    Refunds,
}

/// A shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shop {
    /// The vendor's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One record as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The vendor's id.
    pub id: String,
    /// Its number in its list, from 1.
    pub number: u64,
    /// The vendor's id of the shop.
    pub shop: String,
    /// When it came about.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// How often it has changed, from 1.
    pub version: u64,
    /// Whether it is gone.
    pub deleted: bool,
    /// What it is.
    pub body: Body,
}

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A sale, a refund or a void.
    Sale(Sale),
    /// An order at a supplier.
    SupplierOrder(SupplierOrder),
    /// A guest who signed up.
    Member(Member),
    /// A payment, or one paid back.
    Payment(Payment),
}

/// What a sale is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleKind {
    /// Money in.
    Sale,
    /// Money back.
    Refund,
    /// Never happened.
    Void,
}

impl SaleKind {
    /// The word of the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Refund => "refund",
            Self::Void => "void",
        }
    }
}

/// How a guest paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pay {
    /// Notes and coins.
    Cash,
    /// A card.
    Card,
    /// WeChat Pay.
    WeChat,
    /// Alipay.
    Alipay,
}

/// A sale, a refund or a void. `total = subtotal + tax - discount`, also of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// What it is by now.
    pub kind: SaleKind,
    /// The sale that it pays back.
    pub refund_of: Option<String>,
    /// When it was opened; `created_at` is when the till sent it.
    pub opened_at: DateTime<Utc>,
    /// When it was paid.
    pub paid_at: DateTime<Utc>,
    /// What was sold.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub subtotal: i64,
    /// Tax on top.
    pub tax: i64,
    /// Taken off.
    pub discount: i64,
    /// What is paid.
    pub total: i64,
    /// How it is paid.
    pub pay: Pay,
    /// The member, of some.
    pub guest: Option<Guest>,
    /// The table.
    pub table: String,
    /// How many sat there.
    pub people: u32,
}

/// One line of a sale or an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The vendor's number of the article.
    pub sku: String,
    /// Its name.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// What one costs.
    pub price: i64,
}

impl Line {
    /// What they cost together.
    pub const fn total(&self) -> i64 {
        self.quantity * self.price
    }
}

/// The member of a sale, as far as a sale tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The number of the member.
    pub number: u64,
    /// The name.
    pub name: String,
    /// The phone number.
    pub phone: String,
}

/// How far an order at a supplier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Nobody has looked at it.
    Pending,
    /// The supplier took it.
    Confirmed,
    /// It is on its way.
    Shipped,
    /// It is there.
    Delivered,
    /// It will not come.
    Cancelled,
}

impl OrderState {
    /// The word of the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }

    /// What comes after it.
    pub(super) const fn next(self) -> Option<Self> {
        match self {
            Self::Pending => Some(Self::Confirmed),
            Self::Confirmed => Some(Self::Shipped),
            Self::Shipped => Some(Self::Delivered),
            Self::Delivered | Self::Cancelled => None,
        }
    }
}

/// An order at a supplier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupplierOrder {
    /// How far it is.
    pub state: OrderState,
    /// The supplier's code.
    pub supplier_id: String,
    /// The supplier's name.
    pub supplier_name: String,
    /// When it was ordered.
    pub ordered_at: DateTime<Utc>,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: i64,
}

/// A guest who signed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The given name.
    pub given_name: String,
    /// The family name.
    pub family_name: String,
    /// The phone number.
    pub phone: String,
    /// The address, of some.
    pub email: Option<String>,
    /// Points.
    pub points: i64,
    /// Money on the card.
    pub balance: i64,
    /// When the guest was last there.
    pub last_visit: Option<DateTime<Utc>>,
}

/// A payment, or one paid back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The sale or the payment that it belongs to, by its number.
    pub of: u64,
    /// Whether it was paid back.
    pub refund: bool,
    /// Whether it is done; else it is still to come.
    pub completed: bool,
    /// The amount.
    pub amount: i64,
    /// A tip on top.
    pub tip: i64,
    /// How it is paid.
    pub pay: Pay,
}

/// A record as it is now, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `sale`, `refund` or `void`; how far an order is; `member`; `completed` or `pending` of payments.
    pub kind: &'static str,
    /// Its amount in minor units: of a sale what is paid, of a member the balance.
    pub total: i64,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Whether it is gone.
    pub deleted: bool,
    /// A member's name, given name first.
    pub name: Option<String>,
    /// A member's points.
    pub points: Option<i64>,
    /// A member's telephone number.
    pub phone: Option<String>,
}

impl Record {
    /// The sale, where it is one.
    pub const fn sale(&self) -> Option<&Sale> {
        if let Body::Sale(sale) = &self.body { Some(sale) } else { None }
    }

    /// The order at a supplier, where it is one.
    pub const fn supplier_order(&self) -> Option<&SupplierOrder> {
        if let Body::SupplierOrder(order) = &self.body { Some(order) } else { None }
    }

    /// The member, where it is one.
    pub const fn member(&self) -> Option<&Member> {
        if let Body::Member(member) = &self.body { Some(member) } else { None }
    }

    /// The payment, where it is one.
    pub const fn payment(&self) -> Option<&Payment> {
        if let Body::Payment(payment) = &self.body { Some(payment) } else { None }
    }

    /// What is compared, in neutral words.
    pub fn entry(&self) -> Entry {
        let (kind, total, name, points) = match &self.body {
            Body::Sale(sale) => (sale.kind.as_str(), sale.total, None, None),
            Body::SupplierOrder(order) => (order.state.as_str(), order.total, None, None),
            Body::Member(member) => {
                let name = format!("{} {}", member.given_name, member.family_name);
                ("member", member.balance, Some(name), Some(member.points))
            }
            Body::Payment(payment) => {
                let state = if payment.completed { "completed" } else { "pending" };
                (state, payment.amount + payment.tip, None, None)
            }
        };
        let phone = self.member().map(|member| member.phone.clone());
        Entry { kind, total, updated_at: self.updated_at, deleted: self.deleted, name, points, phone }
    }
}
