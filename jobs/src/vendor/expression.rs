//! Conditions and computed values of manifests, in CEL: no input, no output, no endless loops.
//! Compiled once when a manifest is loaded, within limits that keep vendor data and a careless
//! manifest from costing much; evaluated on the few members that an expression names, so that a rule
//! about `body.code` never converts the thousand records beside it.

#[cfg(test)]
mod fuzz;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program};
use serde_json::{Number, Value};

/// A longer chain of operators overflows the parser's stack long before it is useful.
const SOURCE_CHARS_MAX: usize = 2_000;
/// Deeper expressions are refused: each level of `a + b + c` needs up to 35 KB of stack when it is
/// evaluated in a debug build, on a worker's 2 MB.
const DEPTH_MAX: usize = 24;
/// Room for the parser.
const COMPILE_STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most that an expression may return, in bytes of JSON, about.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Results deeper than this are refused.
const RESULT_DEPTH_MAX: usize = 32;
/// Longer lists and texts are not given to expressions: a macro may join the one with the other.
const LIST_ELEMENTS_MAX: usize = 1_000;
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The standard functions and macros of CEL, built once.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The functions that an expression may call; operators have names that no one can write.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "has",
    "int",
    "orValue",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// One compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    source: String,
    program: Program,
    wants: Wants,
}

/// What an expression reads: for each name the members it names, or all of it.
type Wants = BTreeMap<String, Option<BTreeSet<String>>>;

/// What an expression reads of one of its names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reads<'a> {
    /// It does not look at it.
    Nothing,
    /// These members.
    Members(&'a BTreeSet<String>),
    /// It takes it as a whole.
    All,
}

impl Expression {
    /// Compiles `source`, which may use the given names.
    pub(crate) fn compile(source: &str, names: &[&str]) -> Result<Self, String> {
        if source.chars().count() > SOURCE_CHARS_MAX {
            return Err(format!("the expression is longer than {SOURCE_CHARS_MAX} characters; split it"));
        }
        // The parser needs some 100 KB of stack for each level of nesting in a debug build.
        std::thread::scope(|scope| {
            let compiling = std::thread::Builder::new()
                .name("compile-cel".into())
                .stack_size(COMPILE_STACK_BYTES)
                .spawn_scoped(scope, || compile(source, names))
                .map_err(|error| format!("the expression cannot be compiled: {error}"))?;
            compiling.join().map_err(|_| format!("`{source}` cannot be compiled"))?
        })
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether it looks at what has this name.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.wants.contains_key(name)
    }

    /// What it reads of what has this name.
    pub(crate) fn reads_of(&self, name: &str) -> Reads<'_> {
        match self.wants.get(name) {
            None => Reads::Nothing,
            Some(None) => Reads::All,
            Some(Some(members)) => Reads::Members(members),
        }
    }

    /// The value of the expression for these bindings.
    pub(crate) fn evaluate(&self, bindings: &[(&str, &Value)]) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, members) in &self.wants {
            let Some((_, value)) = bindings.iter().find(|(bound, _)| bound == name) else {
                continue;
            };
            context.add_variable_from_value(name.as_str(), to_cel_members(value, members.as_ref())?);
        }
        let result = self.program.execute(&context).map_err(|error| short(&error.to_string()))?;
        let mut budget = RESULT_BYTES_MAX;
        from_cel(&result, &mut budget, 0)
    }

    /// Whether the condition holds.
    pub(crate) fn holds(&self, bindings: &[(&str, &Value)]) -> Result<bool, String> {
        match self.evaluate(bindings)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("expected `true` or `false`, found `{}`", short(&other.to_string()))),
        }
    }
}

fn compile(source: &str, names: &[&str]) -> Result<Expression, String> {
    let program = ENVIRONMENT.compile(source).map_err(|errors| {
        let text = errors.to_string();
        format!("`{source}` is not a CEL expression: {}", text.lines().next().unwrap_or_default())
    })?;
    let mut survey = Survey { names, wants: Wants::new(), locals: Vec::new(), depth: 0, problem: None };
    survey.visit(program.expression(), false);
    match survey.problem {
        Some(problem) => Err(format!("`{source}`: {problem}")),
        None => Ok(Expression { wants: survey.wants, source: source.to_owned(), program }),
    }
}

/// Walks the expression once: unknown names and functions, nested macros, and what is read.
struct Survey<'a> {
    names: &'a [&'a str],
    wants: Wants,
    locals: Vec<String>,
    depth: usize,
    problem: Option<String>,
}

impl Survey<'_> {
    fn visit(&mut self, expression: &IdedExpr, in_macro: bool) {
        if self.depth >= DEPTH_MAX {
            return self.problem(format!(
                "more than {DEPTH_MAX} operators depend on each other; split it, or use `in`"
            ));
        }
        self.depth += 1;
        self.visit_parts(expression, in_macro);
        self.depth -= 1;
    }

    fn visit_parts(&mut self, expression: &IdedExpr, in_macro: bool) {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.read(name, None),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) => self.read(name, Some(&select.field)),
                _ => self.visit(&select.operand, in_macro),
            },
            Expr::Call(call) => {
                self.call(&call.func_name);
                call.target.iter().for_each(|target| self.visit(target, in_macro));
                call.args.iter().for_each(|argument| self.visit(argument, in_macro));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element, in_macro)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr, in_macro)),
            Expr::Struct(of) => {
                self.problem(format!("`{}` is not known; only plain values are", of.type_name));
            }
            Expr::Comprehension(loops) => {
                if in_macro {
                    // 300 × 300 elements took 30 ms: quadratic work on vendor data is refused.
                    self.problem("a macro (`map`, `filter`, `all`, `exists`) inside another is not allowed");
                }
                self.visit(&loops.iter_range, true);
                let before = self.locals.len();
                self.locals.extend([loops.iter_var.clone(), loops.accu_var.clone()]);
                self.locals.extend(loops.iter_var2.clone());
                for part in [&loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result] {
                    self.visit(part, true);
                }
                self.locals.truncate(before);
            }
        }
    }

    fn entry(&mut self, entry: &EntryExpr, in_macro: bool) {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value, in_macro),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key, in_macro);
                self.visit(&entry.value, in_macro);
            }
        }
    }

    fn read(&mut self, name: &str, member: Option<&str>) {
        if name.starts_with('@') || self.locals.iter().any(|local| local == name) {
            return;
        }
        if !self.names.contains(&name) {
            let known = self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return self.problem(format!("`{name}` is not known here; known are {known}"));
        }
        let wanted = self.wants.entry(name.to_owned()).or_insert_with(|| Some(BTreeSet::new()));
        match (member, &mut *wanted) {
            (Some(member), Some(members)) => {
                members.insert(member.to_owned());
            }
            (Some(_), None) => {}
            (None, _) => *wanted = None,
        }
    }

    fn call(&mut self, function: &str) {
        let operator = !function.starts_with(|first: char| first.is_ascii_alphabetic());
        if !operator && !FUNCTIONS.contains(&function) {
            self.problem(format!("`{function}` is not a function here; known are {}", FUNCTIONS.join(", ")));
        }
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problem.get_or_insert_with(|| problem.into());
    }
}

/// An object with only the members that are wanted; anything else as it is.
fn to_cel_members(value: &Value, members: Option<&BTreeSet<String>>) -> Result<cel::Value, String> {
    match (value, members) {
        (Value::Object(object), Some(members)) => {
            to_cel_map(members.iter().filter_map(|member| object.get_key_value(member)))
        }
        _ => to_cel(value),
    }
}

/// JSON to CEL by hand: serde would turn numbers of arbitrary precision into objects. Whole numbers
/// become `int`, so that a difference may be negative.
fn to_cel(value: &Value) -> Result<cel::Value, String> {
    Ok(match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => number_to_cel(number),
        Value::String(text) if text.len() > TEXT_BYTES_MAX => {
            return Err(format!("a text of {} bytes is too long for an expression", text.len()));
        }
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(elements) if elements.len() > LIST_ELEMENTS_MAX => {
            return Err(format!("a list of {} elements is too long for an expression", elements.len()));
        }
        Value::Array(elements) => {
            cel::Value::List(Arc::new(elements.iter().map(to_cel).collect::<Result<_, _>>()?))
        }
        Value::Object(members) => to_cel_map(members.iter())?,
    })
}

fn to_cel_map<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<cel::Value, String> {
    let map: Result<HashMap<Key, cel::Value>, String> =
        members.map(|(name, value)| Ok((Key::String(Arc::new(name.clone())), to_cel(value)?))).collect();
    Ok(cel::Value::Map(Map { map: Arc::new(map?) }))
}

fn number_to_cel(number: &Number) -> cel::Value {
    if let Some(whole) = number.as_i64() {
        return cel::Value::Int(whole);
    }
    match number.as_f64().filter(|float| float.is_finite()) {
        Some(float) => cel::Value::Float(float),
        // 1e999999: no number that CEL has; its text compares unequal to every number.
        None => cel::Value::String(Arc::new(number.to_string())),
    }
}

fn from_cel(value: &cel::Value, budget: &mut usize, depth: usize) -> Result<Value, String> {
    let cost = 8 + if let cel::Value::String(text) = value { text.len() } else { 0 };
    *budget = budget
        .checked_sub(cost)
        .ok_or_else(|| format!("the result is larger than {RESULT_BYTES_MAX} bytes"))?;
    if depth > RESULT_DEPTH_MAX {
        return Err(format!("the result is nested deeper than {RESULT_DEPTH_MAX}"));
    }
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(flag) => Value::Bool(*flag),
        cel::Value::Int(whole) => Value::from(*whole),
        cel::Value::UInt(whole) => Value::from(*whole),
        cel::Value::Float(float) => {
            Value::Number(Number::from_f64(*float).ok_or("the result is not a finite number")?)
        }
        cel::Value::String(text) => Value::String(text.to_string()),
        cel::Value::List(elements) => Value::Array(
            elements.iter().map(|element| from_cel(element, budget, depth + 1)).collect::<Result<_, _>>()?,
        ),
        cel::Value::Map(map) => {
            let mut members = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(name) = key else {
                    return Err("a key of the result is not text".into());
                };
                *budget = budget.saturating_sub(name.len());
                members.insert(name.to_string(), from_cel(value, budget, depth + 1)?);
            }
            Value::Object(members)
        }
        other => {
            return Err(format!("the result is a {}; expected plain JSON", other.type_of()));
        }
    })
}

/// The beginning of an interpreter's message: it repeats whole values.
fn short(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluate(source: &str, record: &Value) -> Result<Value, String> {
        Expression::compile(source, &["record"])?.evaluate(&[("record", record)])
    }

    #[test]
    fn conditions_and_values_are_computed() {
        let record = json!({"state": "OPEN", "a": 3, "b": 10, "tenders": [{"type": "CARD"}], "n": null});
        for (source, expected) in [
            ("record.state in ['OPEN', 'DRAFT']", json!(true)),
            ("record.a - record.b", json!(-7)),
            ("has(record.missing)", json!(false)),
            ("has(record.tenders) ? record.tenders[0].type : 'NONE'", json!("CARD")),
            ("record.n == null", json!(true)),
            ("size(record.tenders)", json!(1)),
            ("record.tenders.exists(t, t.type == 'CARD')", json!(true)),
            ("{'a': [1, 2]}", json!({"a": [1, 2]})),
            ("string(record.a) + ' of ' + string(record.b)", json!("3 of 10")),
            ("record['state'] == 'OPEN'", json!(true)),
        ] {
            assert_eq!(evaluate(source, &record), Ok(expected), "{source}");
        }
    }

    #[test]
    fn mistakes_are_found_at_load() {
        for (source, says) in [
            ("record.", "not a CEL expression"),
            ("body.code == 0", "`body` is not known here; known are `record`"),
            ("fetch(record.url)", "`fetch` is not a function"),
            ("record.a.map(x, record.b.map(y, y))", "inside another"),
            (&"1 + ".repeat(1_000), "longer than 2000 characters"),
        ] {
            let problem = Expression::compile(source, &["record"]).unwrap_err();
            assert!(problem.contains(says), "{source}: {problem}");
        }
    }

    #[test]
    fn mistakes_in_the_data_are_errors() {
        let record = json!({"zero": 0, "huge": 9_223_372_036_854_775_807_i64, "list": [], "text": "x"});
        for source in [
            "record.missing == 1",
            "1 / record.zero",
            "record.huge + 1",
            "record.list[3]",
            "int(record.text)",
            "record.text - 1",
            "record.zero == 0 && record.text",
        ] {
            assert!(
                Expression::compile(source, &["record"]).unwrap().holds(&[("record", &record)]).is_err(),
                "{source}"
            );
        }
    }

    #[test]
    fn a_number_beyond_all_numbers_is_harmless() {
        let record: Value = serde_json::from_str(r#"{"price": 1e999999}"#).unwrap();
        assert_eq!(evaluate("record.price == 0", &record), Ok(json!(false)));
    }

    #[test]
    fn a_result_has_a_largest_size() {
        let record = json!({"list": vec!["x".repeat(1_000); 100]});
        assert!(evaluate("record.list", &record).unwrap_err().contains("larger than"));
    }

    #[test]
    fn no_expression_overflows_the_stack() {
        let record = json!({"a": 1, "b": true});
        for count in [2, DEPTH_MAX - 3, DEPTH_MAX + 3, 90, 190] {
            for source in [
                format!("record.a{}", " + 1".repeat(count)),
                format!("{}record.b", "!".repeat(count)),
                format!("{}1{}", "(".repeat(count), ")".repeat(count)),
                format!("{}1{}", "[".repeat(count), "]".repeat(count)),
                format!("record.b{}", " && record.b".repeat(count)),
                format!("{}1", "record.b ? 1 : ".repeat(count)),
                format!("record{}", ".a".repeat(count)),
                format!("record{}", "[0]".repeat(count)),
                format!("{}record.a{}", "int(".repeat(count), ")".repeat(count)),
            ] {
                if let Ok(expression) = Expression::compile(&source, &["record"]) {
                    let _ = expression.evaluate(&[("record", &record)]);
                }
            }
        }
        let deep = format!("record.a{}", " + 1".repeat(DEPTH_MAX));
        assert!(
            Expression::compile(&deep, &["record"]).unwrap_err().contains("operators depend on each other")
        );
    }

    #[test]
    fn what_is_read_has_a_largest_size() {
        let record =
            json!({"list": vec![1; LIST_ELEMENTS_MAX + 1], "text": "x".repeat(TEXT_BYTES_MAX + 1), "a": 1});
        assert_eq!(evaluate("record.a == 1", &record), Ok(json!(true)));
        assert!(
            evaluate("size(record.list) == 1", &record).unwrap_err().contains("too long for an expression")
        );
        assert!(evaluate("record.text == ''", &record).unwrap_err().contains("too long for an expression"));
    }

    #[test]
    fn only_named_members_are_read() {
        let expression = Expression::compile("status == 200 && body.code == 0", &["status", "body"]).unwrap();
        assert_eq!(expression.wants["body"], Some(BTreeSet::from(["code".to_owned()])));
        let whole = Expression::compile("size(body) > 0 || body.code == 0", &["body"]).unwrap();
        assert_eq!(whole.wants["body"], None);
    }
}
