//! A set of paths, as a trie whose parts are shared: what an operation leaves as it was costs a reference.

use std::cmp::Ordering;
use std::sync::Arc;

use super::element::Element;

/// A set of fields. The empty path is never a member: nobody owns a whole object.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Set {
    /// Sorted by element, each once; every node is a member or has members below it.
    nodes: Arc<[Node]>,
}

/// An element, whether its path is a member, and the members below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub element: Element,
    pub member: bool,
    pub children: Set,
}

impl Set {
    /// A set of field paths: `&[&["metadata", "name"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut out = Self::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            out.insert(&path);
        }
        out
    }

    /// From nodes in any order; later ones of the same element are merged into the first.
    pub fn from_nodes(mut nodes: Vec<Node>) -> Self {
        nodes.retain(|n| n.member || !n.children.is_empty());
        if !nodes.windows(2).all(|pair| pair[0].element < pair[1].element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|later, first| {
                let same = later.element == first.element;
                if same {
                    first.member |= later.member;
                    first.children = first.children.union(&later.children);
                }
                same
            });
        }
        Self { nodes: nodes.into() }
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let mut nodes = self.nodes.to_vec();
        let at = match nodes.binary_search_by(|n| n.element.cmp(first)) {
            Ok(at) => at,
            Err(at) => {
                let node = Node { element: first.clone(), member: false, children: Self::default() };
                nodes.insert(at, node);
                at
            }
        };
        if rest.is_empty() {
            nodes[at].member = true;
        } else {
            nodes[at].children.insert(rest);
        }
        self.nodes = nodes.into();
    }

    pub fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.binary_search_by(|n| n.element.cmp(element)).ok().map(|at| &self.nodes[at])
    }

    /// The node of a field.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.nodes.binary_search_by(|n| n.element.cmp_field(name)).ok().map(|at| &self.nodes[at])
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|n| n.member),
            [first, rest @ ..] => self.get(first).is_some_and(|n| n.children.has(rest)),
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut mine, mut theirs) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            match order {
                Ordering::Less => nodes.extend(mine.next().cloned()),
                Ordering::Greater => nodes.extend(theirs.next().cloned()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (mine.next(), theirs.next()) {
                        nodes.push(Node {
                            element: a.element.clone(),
                            member: a.member || b.member,
                            children: a.children.union(&b.children),
                        });
                    }
                }
            }
        }
        Self { nodes: nodes.into() }
    }

    pub fn intersection(&self, other: &Self) -> Self {
        self.paired(other, |mine, theirs| {
            let theirs = theirs?;
            Some((mine.member && theirs.member, mine.children.intersection(&theirs.children)))
        })
    }

    /// The members of `self` that are not in `other`. A member of `other` takes nothing from below it.
    pub fn difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        self.paired(other, |mine, theirs| match theirs {
            None => Some((mine.member, mine.children.clone())),
            Some(theirs) => Some((mine.member && !theirs.member, mine.children.difference(&theirs.children))),
        })
    }

    /// The members of `self` that are neither in `other` nor below a member of it.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        self.paired(other, |mine, theirs| match theirs {
            None => Some((mine.member, mine.children.clone())),
            Some(theirs) if theirs.member => None,
            Some(theirs) => Some((mine.member, mine.children.recursive_difference(&theirs.children))),
        })
    }

    /// Each of my nodes with its counterpart, as what `keep` makes of the two: member and children.
    fn paired(&self, other: &Self, keep: impl Fn(&Node, Option<&Node>) -> Option<(bool, Set)>) -> Self {
        let mut theirs = other.nodes.iter().peekable();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for mine in self.nodes.iter() {
            while theirs.next_if(|t| t.element < mine.element).is_some() {}
            let partner = theirs.next_if(|t| t.element == mine.element);
            if let Some((member, children)) = keep(mine, partner)
                && (member || !children.is_empty())
            {
                nodes.push(Node { element: mine.element.clone(), member, children });
            }
        }
        Self { nodes: nodes.into() }
    }

    /// Without these paths of fields; what is below them stays.
    pub fn without_fields(&self, paths: &[&[&str]]) -> Self {
        let kept = self.nodes.iter().filter_map(|node| {
            let here = |path: &&[&str]| path.first().is_some_and(|name| node.element.cmp_field(name).is_eq());
            let below: Vec<&[&str]> = paths.iter().filter(|path| here(path)).map(|path| &path[1..]).collect();
            if below.is_empty() {
                return Some(node.clone());
            }
            let member = node.member && !below.iter().any(|path| path.is_empty());
            let children = node.children.without_fields(&below);
            (member || !children.is_empty()).then(|| Node { element: node.element.clone(), member, children })
        });
        Self { nodes: kept.collect() }
    }

    /// Every member: those of a level in order, then those below.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for node in self.nodes.iter().filter(|n| n.member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            out.push(path);
        }
        for node in self.nodes.iter() {
            prefix.push(node.element.clone());
            node.children.collect(prefix, out);
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&[&str]]) -> Set {
        Set::of_fields(paths)
    }

    #[test]
    fn algebra() {
        let a = set(&[&["a"], &["a", "b"], &["c", "d"]]);
        let b = set(&[&["a"], &["c"], &["e"]]);
        assert_eq!(a.union(&b), set(&[&["a"], &["a", "b"], &["c"], &["c", "d"], &["e"]]));
        assert_eq!(a.intersection(&b), set(&[&["a"]]));
        assert_eq!(a.difference(&b), set(&[&["a", "b"], &["c", "d"]]));
        assert_eq!(a.recursive_difference(&b), Set::default());
        assert!(a.has(&[Element::field("c"), Element::field("d")]));
        assert!(!a.has(&[Element::field("c")]));
        assert!(a.difference(&a).is_empty());
        assert_eq!(a.without_fields(&[&["a"], &["c", "d"], &["b"]]), set(&[&["a", "b"]]));
    }

    #[test]
    fn unsorted_nodes_are_joined() {
        let node = |name: &str, member| Node {
            element: Element::field(name),
            member,
            children: if member { Set::default() } else { set(&[&["x"]]) },
        };
        let joined = Set::from_nodes(vec![node("b", true), node("a", true), node("b", false)]);
        assert_eq!(joined, set(&[&["a"], &["b"], &["b", "x"]]));
    }

    #[test]
    fn members_of_a_level_come_before_what_is_below() {
        let shown: Vec<String> = set(&[&["a", "b"], &["c"]])
            .paths()
            .iter()
            .map(|path| path.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(shown, [".c", ".a.b"]);
    }
}
