//! Walks of sets that need the type.

use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::{Node, Set};

/// The set with every struct field that has members below it as a member itself.
pub fn named_fields_are_members(types: Types<'_>, set: &Set) -> Set {
    named(types, types.root(), set)
}

fn named<'s>(types: Types<'s>, shape: Shape<'s>, set: &Set) -> Set {
    let nodes = set.nodes().iter().map(|node| {
        let field = node.element.field_name();
        let below = match field {
            Some(name) => shape.entry(types, name),
            None if node.element.is_keys() => shape.item(types),
            None => Shape::Deduced,
        };
        let implied = !node.children.is_empty() && field.is_some_and(|name| shape.is_named(name));
        Node {
            element: node.element.clone(),
            member: node.member || implied,
            children: named(types, below, &node.children),
        }
    });
    Set::from_nodes(nodes.collect())
}

/// The set as the present types see it: where a list or map is owned as a whole now, what was owned in it
/// becomes the whole. `None` when nothing changes.
pub fn reconciled(types: Types<'_>, set: &Set) -> Option<Set> {
    reconcile(types, types.root(), set)
}

fn reconcile<'s>(types: Types<'s>, shape: Shape<'s>, set: &Set) -> Option<Set> {
    let mut changed: Option<Vec<Node>> = None;
    for (index, node) in set.nodes().iter().enumerate() {
        if node.children.is_empty() {
            continue;
        }
        let below = match node.element.field_name() {
            Some(name) if matches!(shape, Shape::Struct { .. } | Shape::Map { .. }) => {
                if matches!(shape, Shape::Struct { .. }) && !shape.is_named(name) {
                    continue;
                }
                shape.entry(types, name)
            }
            None if shape.has_items() => shape.item(types),
            _ => continue,
        };
        let whole = matches!(
            below,
            Shape::List(_) | Shape::Struct { atomic: true, .. } | Shape::Map { atomic: true, .. }
        );
        let replacement = if whole {
            Some(Node { element: node.element.clone(), member: true, children: Set::default() })
        } else {
            reconcile(types, below, &node.children).map(|children| Node {
                element: node.element.clone(),
                member: node.member,
                children,
            })
        };
        if let Some(replacement) = replacement {
            changed.get_or_insert_with(|| set.nodes().to_vec())[index] = replacement;
        }
    }
    changed.map(Set::from_nodes)
}
