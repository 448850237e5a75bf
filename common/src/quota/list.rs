//! Amounts by resource name, kept with their family of suffixes.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::quantity::Quantity;

/// A quantity that remembers whether it was written in powers of 1024.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount {
    pub value: Quantity,
    binary: bool,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Amount {}

impl From<Quantity> for Amount {
    fn from(value: Quantity) -> Self {
        Self { value, binary: false }
    }
}

impl Amount {
    pub fn units(units: i64) -> Self {
        Quantity::from_units(units).into()
    }

    /// `None` when `text` is no quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let value = Quantity::parse(text.trim()).ok()?;
        Some(Self { value, binary: text.trim_end().ends_with('i') })
    }

    /// Reads an amount given as text or number.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Rounded up to a whole number.
    pub fn rounded_up(self) -> Self {
        let whole = Quantity::from_units(self.value.units());
        Self { value: whole, ..self }
    }

    /// A sum takes the suffixes of its first part, unless that is nothing.
    fn plus(self, other: Self) -> Self {
        let binary = if self.value.is_zero() { other.binary } else { self.binary };
        Self { value: self.value + other.value, binary }
    }
}

/// Canonical, as upstream's encoder writes it.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SUFFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let units = self.value.units();
        if !self.binary || units.unsigned_abs() < 1024 || Quantity::from_units(units) != self.value {
            return self.value.fmt(f);
        }
        match (units.trailing_zeros() / 10).min(6) as usize {
            0 => write!(f, "{units}"),
            power => write!(f, "{}{}", units >> (10 * power), SUFFIXES[power - 1]),
        }
    }
}

/// `v1.ResourceList`, in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceList(pub BTreeMap<String, Amount>);

impl ResourceList {
    /// Reads a map of quantities; what is none is left out.
    pub fn read(tree: &Value) -> Self {
        let entries = tree.as_object().into_iter().flatten();
        Self(entries.filter_map(|(name, value)| Some((name.clone(), Amount::read(value)?))).collect())
    }

    pub fn to_tree(&self) -> Value {
        let entries = self.0.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
        Value::Object(entries.collect::<Map<_, _>>())
    }

    pub fn get(&self, name: &str) -> Option<Amount> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl Into<String>, amount: impl Into<Amount>) {
        self.0.insert(name.into(), amount.into());
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.get(name).map_or(*amount, |own| own.plus(*amount));
            self.0.insert(name.clone(), sum);
        }
    }

    /// The greater of both for each name.
    pub fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if self.0.get(name).is_none_or(|own| amount.value > own.value) {
                self.0.insert(name.clone(), *amount);
            }
        }
    }

    /// What `self` has more than `other`: never less than nothing.
    pub fn increase_over(&self, other: &Self) -> Self {
        let more = |(name, amount): (&String, &Amount)| {
            let before = other.get(name).unwrap_or_default();
            let value = (amount.value - before.value).max(Quantity::ZERO);
            (name.clone(), Amount { value, ..*amount })
        };
        Self(self.0.iter().map(more).collect())
    }

    /// Only the entries whose name is wanted.
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| wanted(name));
        Self(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    pub fn without_zeros(&self) -> Self {
        let kept = self.0.iter().filter(|(_, amount)| !amount.value.is_zero());
        Self(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    /// The names of which `self` has more than `limit` allows; a name without a limit is never too much.
    pub fn exceeding(&self, limit: &Self) -> Vec<String> {
        let too_much = |(name, amount): &(&String, &Amount)| {
            limit.0.get(*name).is_some_and(|most| amount.value > most.value)
        };
        self.0.iter().filter(too_much).map(|(name, _)| name.clone()).collect()
    }
}

/// `cpu=1,memory=1Gi`, as refusals show it.
impl fmt::Display for ResourceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, amount)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={amount}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums_keep_the_family_of_suffixes() {
        let mut list = ResourceList::read(&json!({"memory": "512Mi", "cpu": "500m", "pods": 0}));
        list.add(&ResourceList::read(&json!({"memory": "1.5Gi", "cpu": 1.5, "x": "1000Ki"})));
        assert_eq!(list.to_string(), "cpu=2,memory=2Gi,pods=0,x=1000Ki");
        let mut nothing = ResourceList::read(&json!({"memory": "0"}));
        nothing.add(&ResourceList::read(&json!({"memory": "1Gi"})));
        assert_eq!(nothing.to_tree(), json!({"memory": "1Gi"}));
    }

    #[test]
    fn increases_are_never_negative() {
        let new = ResourceList::read(&json!({"cpu": "1", "memory": "1Gi"}));
        let old = ResourceList::read(&json!({"cpu": "2", "memory": "512Mi"}));
        assert_eq!(new.increase_over(&old).to_string(), "cpu=0,memory=512Mi");
        assert_eq!(new.exceeding(&old), ["memory"]);
    }
}
