//! Writes down what the readers of manifests ask for: the readers are the grammar, and the schema for editors is
//! made of what they asked, so that the two cannot drift apart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The name of an author's choice, in a key.
pub(super) const ANY_NAME: &str = "*";
/// An element of a list, in a key.
pub(super) const ELEMENT: &str = "[]";
/// A field of a mapping, which is the same wherever it stands.
pub(super) const FIELD: &str = "field";

/// What a key may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::vendor) enum Kind {
    Any,
    Text,
    Choice(BTreeSet<String>),
    Flag,
    Whole(u32, u32),
    Share,
    /// One text or a list of them.
    Texts,
    Table,
    /// Texts with names of the author's choice.
    TextTable,
    /// A field of a mapping.
    Field,
}

/// What was asked for while some manifests were read, by dotted key.
#[derive(Debug, Default)]
pub(in crate::vendor) struct Recorder {
    asked: RefCell<BTreeMap<String, BTreeSet<Kind>>>,
    named: RefCell<BTreeSet<String>>,
    closed: RefCell<BTreeSet<String>>,
    fields: RefCell<BTreeSet<String>>,
}

/// What was asked for, as a tree.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) kinds: BTreeSet<Kind>,
    pub(super) below: BTreeMap<String, Self>,
    /// Whether other keys are mistakes.
    pub(super) closed: bool,
}

impl Recorder {
    pub(super) fn asked(&self, key: &str, kind: Kind) {
        self.asked.borrow_mut().entry(key.to_owned()).or_default().insert(kind);
    }

    /// The names below the key are of the author's choice.
    pub(super) fn has_names(&self, key: &str) {
        self.named.borrow_mut().insert(key.to_owned());
    }

    /// Other keys than those that were asked for are mistakes.
    pub(super) fn is_closed(&self, key: &str) {
        self.closed.borrow_mut().insert(key.to_owned());
    }

    pub(super) fn is_field(&self, key: &str) {
        self.fields.borrow_mut().insert(key.to_owned());
    }

    /// The whole, and the field of a mapping.
    pub(super) fn trees(&self) -> (Node, Node) {
        let (mut root, mut field) = (Node::default(), Node::default());
        for (key, kinds) in &*self.asked.borrow() {
            // What a field may be is said where it stands; what is in it, of all fields alike.
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            let name = self.shape(table, name);
            let below = &mut self.table(&mut root, &mut field, table).below;
            below.entry(name.to_owned()).or_default().kinds.extend(kinds.iter().cloned());
        }
        for key in &*self.closed.borrow() {
            self.table(&mut root, &mut field, key).closed = true;
        }
        for key in &*self.named.borrow() {
            self.table(&mut root, &mut field, key).below.entry(ANY_NAME.to_owned()).or_default();
        }
        (root, field)
    }

    /// Where a table stands in the trees, whatever the author's names are.
    fn table<'n>(&self, root: &'n mut Node, field: &'n mut Node, key: &str) -> &'n mut Node {
        let (mut path, mut before, mut in_field) = (Vec::new(), String::new(), false);
        for part in key.split('.').filter(|part| !part.is_empty()) {
            path.push(self.shape(&before, part));
            if !before.is_empty() {
                before.push('.');
            }
            before.push_str(part);
            if self.fields.borrow().contains(&before) {
                (in_field, path) = (true, Vec::new());
            }
        }
        let start = if in_field { field } else { root };
        path.into_iter().fold(start, |node, part| node.below.entry(part.to_owned()).or_default())
    }

    /// What a name stands for below a table.
    fn shape<'p>(&self, table: &str, part: &'p str) -> &'p str {
        if self.named.borrow().contains(table) {
            ANY_NAME
        } else if part.bytes().all(|byte| byte.is_ascii_digit()) {
            ELEMENT
        } else {
            part
        }
    }
}
