//! What is applied in one family's table, and the commands that lead from there to what should be.
//!
//! Services own elements and chains; where two services claim one element (an external IP used twice), the first
//! by name has it and the other gets it when the first goes.

use std::collections::{BTreeMap, BTreeSet};

use super::fragment::Fragment;
use super::{Set, TABLE, ip_word};
use crate::model::{Family, Key};

/// Elements per command line, so that lines stay readable in logs and nft's parser happy.
const ELEMENTS_PER_COMMAND: usize = 200;

#[derive(Debug)]
pub struct Table {
    family: Family,
    fragments: BTreeMap<Key, Fragment>,
    /// Claims per element: the first key's value is the one applied.
    claims: BTreeMap<(Set, String), BTreeMap<Key, String>>,
    /// Emptied chains that can be deleted now: the kernel may see them as referenced until a moment after the
    /// transaction that removed the last reference.
    stale: BTreeSet<String>,
}

/// Commands of one transaction by kind, so that everything exists before it is referenced.
#[derive(Default)]
struct Transaction {
    declare: Vec<String>,
    rules: Vec<String>,
    remove: BTreeMap<Set, Vec<String>>,
    add: BTreeMap<Set, Vec<String>>,
    retire: Vec<String>,
}

impl Table {
    pub fn new(family: Family) -> Self {
        Self { family, fragments: BTreeMap::new(), claims: BTreeMap::new(), stale: BTreeSet::new() }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// (internal, external) ports that drop traffic for want of local endpoints.
    pub fn without_local(&self) -> (usize, usize) {
        self.fragments.values().fold((0, 0), |(i, e), f| (i + f.without_local.0, e + f.without_local.1))
    }

    /// Takes new fragments of services (an empty one removes the service) and says what to run.
    pub fn replace(&mut self, fragments: Vec<(Key, Fragment)>) -> Vec<String> {
        let mut tx = Transaction::default();
        for (key, new) in fragments {
            let old = self.fragments.remove(&key).unwrap_or_default();
            self.chains(&old, &new, &mut tx);
            self.elements(&key, &old, &new, &mut tx);
            if new != Fragment::default() {
                self.fragments.insert(key, new);
            }
        }
        tx.render(self.family)
    }

    /// Everything, for a table whose base was just made and whose sets are empty. `existing` are chains and sets
    /// found in the kernel: those that are no service's any more are retired, affinity sets of the others stay.
    pub fn rebuild(&mut self, existing: &Existing) -> Vec<String> {
        let mut tx = Transaction::default();
        let mut wanted = BTreeSet::new();
        let mut sets = BTreeSet::new();
        for fragment in self.fragments.values() {
            self.chains(&Fragment::default(), fragment, &mut tx);
            wanted.extend(fragment.chains.keys().cloned());
            sets.extend(fragment.affinity.keys().cloned());
        }
        for ((set, key), claims) in &self.claims {
            if let Some(value) = claims.values().next() {
                tx.add.entry(*set).or_default().push(element(key, value));
            }
        }
        let table = format!("{} {TABLE}", ip_word(self.family));
        self.stale.clear();
        for chain in existing.chains.iter().filter(|c| !wanted.contains(*c)) {
            if !super::base::is_base_chain(chain) {
                tx.retire.push(format!("flush chain {table} {chain}"));
                self.stale.insert(chain.clone());
            }
        }
        for set in existing.sets.iter().filter(|s| s.starts_with("affinity-") && !sets.contains(*s)) {
            tx.retire.push(format!("delete set {table} {set}"));
        }
        tx.render(self.family)
    }

    /// Chains that were emptied before and may go now.
    pub fn take_stale(&mut self) -> Vec<String> {
        let table = format!("{} {TABLE}", ip_word(self.family));
        std::mem::take(&mut self.stale).iter().map(|c| format!("delete chain {table} {c}")).collect()
    }

    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    fn chains(&self, old: &Fragment, new: &Fragment, tx: &mut Transaction) {
        let table = format!("{} {TABLE}", ip_word(self.family));
        for (set, seconds) in &new.affinity {
            if old.affinity.get(set) == Some(seconds) {
                continue;
            }
            if old.affinity.contains_key(set) {
                // A timeout cannot be changed in place: its users are emptied, the set is made again.
                for chain in old.chains.keys() {
                    tx.declare.push(format!("flush chain {table} {chain}"));
                }
                tx.declare.push(format!("delete set {table} {set}"));
            }
            tx.declare.push(format!(
                "add set {table} {set} {{ type {} ; flags dynamic,timeout ; timeout {seconds}s ; }}",
                super::address_type(self.family)
            ));
        }
        let remade = new.affinity.iter().any(|(s, t)| old.affinity.get(s).is_some_and(|before| before != t));
        for (chain, rules) in &new.chains {
            if !remade && old.chains.get(chain) == Some(rules) {
                continue;
            }
            tx.declare.push(format!("add chain {table} {chain}"));
            tx.declare.push(format!("flush chain {table} {chain}"));
            tx.rules.extend(rules.iter().map(|rule| format!("add rule {table} {chain} {rule}")));
        }
        for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
            tx.retire.push(format!("flush chain {table} {chain}"));
        }
        for set in old.affinity.keys().filter(|s| !new.affinity.contains_key(*s)) {
            tx.retire.push(format!("delete set {table} {set}"));
        }
    }

    fn elements(&mut self, key: &Key, old: &Fragment, new: &Fragment, tx: &mut Transaction) {
        for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
            self.stale.insert(chain.clone());
        }
        for chain in new.chains.keys() {
            self.stale.remove(chain);
        }
        let touched: BTreeSet<&(Set, String)> = old.elements.keys().chain(new.elements.keys()).collect();
        for at in touched {
            let claims = self.claims.entry(at.clone()).or_default();
            let before = claims.values().next().cloned();
            match new.elements.get(at) {
                Some(value) => drop(claims.insert(key.clone(), value.clone())),
                None => drop(claims.remove(key)),
            }
            let after = claims.values().next().cloned();
            if claims.is_empty() {
                self.claims.remove(at);
            }
            if before == after {
                continue;
            }
            if let Some(value) = before {
                tx.remove.entry(at.0).or_default().push(element(&at.1, &value));
            }
            if let Some(value) = after {
                tx.add.entry(at.0).or_default().push(element(&at.1, &value));
            }
        }
    }
}

/// Names found in the kernel's table.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    pub chains: Vec<String>,
    pub sets: Vec<String>,
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

impl Transaction {
    fn render(self, family: Family) -> Vec<String> {
        let table = format!("{} {TABLE}", ip_word(family));
        let mut out = self.declare;
        out.extend(self.rules);
        for (verb, sets) in [("delete", self.remove), ("add", self.add)] {
            for (set, elements) in sets {
                for some in elements.chunks(ELEMENTS_PER_COMMAND) {
                    out.push(format!("{verb} element {table} {} {{ {} }}", set.name(), some.join(", ")));
                }
            }
        }
        out.extend(self.retire);
        out
    }
}
