//! Lists whose elements are no records yet: one element holds several records (the bills of a shop), or several
//! rows are one record (the lines of an order). Between the vendor's answer and the mapping.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::vendor::manifest::section::Section;
use crate::vendor::path::Path;
use crate::vendor::template;

/// How the elements of a list become records.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) split: Option<Split>,
    pub(crate) group: Option<Group>,
}

/// One element, several records.
#[derive(Debug)]
pub(crate) struct Split {
    /// The list of records in the element.
    list: Path,
    /// The member of each record that holds the rest of the element.
    into: Option<String>,
}

/// Several rows, one record.
#[derive(Debug)]
pub(crate) struct Group {
    /// What the rows of one record have in common.
    by: Path,
    /// The member of the record that holds its rows.
    into: String,
}

/// An element that cannot become a record, and why.
pub(crate) type Misshapen = (Value, String);

impl Shape {
    /// Makes records of the elements, in their order; those that cannot are told with the reason.
    pub(crate) fn records(&self, elements: Vec<Value>) -> (Vec<Value>, Vec<Misshapen>) {
        let mut misshapen = Vec::new();
        let mut records = elements;
        if let Some(split) = &self.split {
            records = split.records(records, &mut misshapen);
        }
        if let Some(group) = &self.group {
            records = group.records(records, &mut misshapen);
        }
        (records, misshapen)
    }
}

impl Split {
    fn records(&self, elements: Vec<Value>, misshapen: &mut Vec<Misshapen>) -> Vec<Value> {
        let mut records = Vec::new();
        for mut element in elements {
            let inner = match self.list.find_mut(&mut element).map(Value::take) {
                Some(Value::Array(inner)) => inner,
                None | Some(Value::Null) => continue,
                Some(other) => {
                    if let Some(place) = self.list.find_mut(&mut element) {
                        *place = other;
                    }
                    let reason = format!("expected the list of its records at `{}`", self.list.as_str());
                    misshapen.push((element, reason));
                    continue;
                }
            };
            records.extend(inner.into_iter().map(|mut record| {
                if let (Some(name), Value::Object(members)) = (&self.into, &mut record) {
                    members.insert(name.clone(), element.clone());
                }
                record
            }));
        }
        records
    }
}

impl Group {
    /// The members of a record are those of its first row; all rows stand in its list.
    fn records(&self, rows: Vec<Value>, misshapen: &mut Vec<Misshapen>) -> Vec<Value> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<Vec<Value>> = Vec::new();
        for row in rows {
            let Some(key) = self.by.find(&row).and_then(template::as_text).filter(|_| row.is_object()) else {
                let reason =
                    format!("the row has nothing at `{}`, which says what it belongs to", self.by.as_str());
                misshapen.push((row, reason));
                continue;
            };
            let place = *places.entry(key).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
        let records = groups.into_iter().map(|rows| {
            let mut record: Map<String, Value> =
                rows.first().and_then(Value::as_object).cloned().unwrap_or_default();
            record.insert(self.into.clone(), Value::Array(rows));
            Value::Object(record)
        });
        records.collect()
    }
}

/// Reads `split`, `split_into`, `group_by` and `group_into` of an answer.
pub(super) fn read_shape(section: &Section<'_>) -> Shape {
    let name = |key| section.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let (split_into, group_into) = (name("split_into"), name("group_into"));
    for (key, other, what) in [
        ("split_into", "split", "names where the rest of an element goes"),
        ("group_into", "group_by", "names where the rows of a record go"),
    ] {
        if section.has(key) && !section.has(other) {
            section.problem(key, format!("{what}, and there is no `{other}`"));
        }
    }
    let split = section.path("split").map(|list| Split { list, into: split_into });
    let by = section.path("group_by");
    if by.is_some() && group_into.is_none() {
        section
            .problem("group_into", "is missing; name the member that holds the rows of a record, as `lines`");
    }
    let group = by.zip(group_into).map(|(by, into)| Group { by, into });
    Shape { split, group }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn one_element_becomes_the_records_in_it() {
        let split = Some(Split { list: path("bills"), into: Some("shop".into()) });
        let shape = Shape { split, group: None };
        let (records, misshapen) = shape.records(vec![
            json!({"no": "S1", "bills": [{"id": 1}, {"id": 2}]}),
            json!({"no": "S2", "bills": null}),
            json!({"no": "S3"}),
            json!({"no": "S4", "bills": "none"}),
        ]);
        let shop = json!({"no": "S1", "bills": null});
        assert_eq!(records, [json!({"id": 1, "shop": shop}), json!({"id": 2, "shop": shop})]);
        assert_eq!(misshapen.len(), 1);
        assert_eq!(misshapen[0].0, json!({"no": "S4", "bills": "none"}));
        assert!(misshapen[0].1.contains("`bills`"), "{misshapen:?}");
    }

    #[test]
    fn several_rows_become_one_record_in_their_order() {
        let group = Some(Group { by: path("bill"), into: "lines".into() });
        let shape = Shape { split: None, group };
        let (a, b, c) =
            (json!({"bill": "A", "n": 1}), json!({"bill": 7, "n": 2}), json!({"bill": "A", "n": 3}));
        let rows = vec![a.clone(), b.clone(), c.clone(), json!({"n": 4}), json!(5)];
        let (records, misshapen) = shape.records(rows);
        assert_eq!(
            records,
            [json!({"bill": "A", "n": 1, "lines": [a, c]}), json!({"bill": 7, "n": 2, "lines": [b]})]
        );
        assert_eq!(misshapen.iter().map(|(row, _)| row).collect::<Vec<_>>(), [&json!({"n": 4}), &json!(5)]);
    }

    #[test]
    fn what_was_split_can_be_grouped() {
        let split = Some(Split { list: path("rows"), into: None });
        let group = Some(Group { by: path("bill"), into: "lines".into() });
        let (records, _) = Shape { split, group }
            .records(vec![json!({"rows": [{"bill": 1}]}), json!({"rows": [{"bill": 1}]})]);
        assert_eq!(records, [json!({"bill": 1, "lines": [{"bill": 1}, {"bill": 1}]})]);
    }
}
