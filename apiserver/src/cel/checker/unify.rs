//! Whether a type fits another, and what that says of the type parameters in them (cel-go's `checker/types.go`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::cel::types::Type;

/// What is known of type variables. An attempt that fails leaves no trace.
#[derive(Debug, Default)]
pub(super) struct Unifier {
    known: HashMap<Arc<str>, Type>,
    /// What was there before each change since an attempt began.
    undo: Vec<(Arc<str>, Option<Type>)>,
    fresh: usize,
}

impl Unifier {
    /// A new type variable.
    pub(super) fn fresh(&mut self) -> Type {
        self.fresh += 1;
        Type::Param(format!("_var{}", self.fresh - 1).into())
    }

    pub(super) fn is_assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(a), std::slice::from_ref(b))
    }

    pub(super) fn all_assignable(&mut self, a: &[Type], b: &[Type]) -> bool {
        self.undo.clear();
        let fits = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.fits(a, b));
        if !fits {
            for (name, before) in std::mem::take(&mut self.undo).into_iter().rev() {
                match before {
                    Some(ty) => self.known.insert(name, ty),
                    None => self.known.remove(&name),
                };
            }
        }
        fits
    }

    /// The type with what is known filled in; `to_dyn` turns what stays open to `dyn`.
    pub(super) fn substitute(&self, ty: &Type, to_dyn: bool) -> Type {
        let inner = |ty: &Arc<Type>| Arc::new(self.substitute(ty, to_dyn));
        match ty {
            Type::Param(name) => match self.known.get(name) {
                Some(known) => self.substitute(known, to_dyn),
                None if to_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(a) => Type::List(inner(a)),
            Type::Map(a, b) => Type::Map(inner(a), inner(b)),
            Type::Optional(a) => Type::Optional(inner(a)),
            Type::Type(Some(a)) => Type::Type(Some(inner(a))),
            other => other.clone(),
        }
    }

    fn set(&mut self, name: &Arc<str>, ty: Type) {
        let before = self.known.insert(name.clone(), ty);
        self.undo.push((name.clone(), before));
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(name) = b {
            let (valid, bound) = self.substitutes(a, name, b);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Param(name) = a {
            return self.substitutes(b, name, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null
                    | Type::Optional(_)
                    | Type::Opaque(_)
                    | Type::Object(_)
                    | Type::Duration
                    | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.fits(k1, k2) && self.fits(v1, v2),
            (a, b) => a == b,
        }
    }

    /// Whether `ty` may stand for the variable, and whether something already did.
    fn substitutes(&mut self, ty: &Type, name: &Arc<str>, variable: &Type) -> (bool, bool) {
        if ty == variable {
            return (true, true);
        }
        if let Some(known) = self.known.get(name).cloned() {
            if *ty == known {
                return (true, true);
            }
            if !self.fits(ty, &known) {
                return (false, true);
            }
            let general = most_general(ty, &known).clone();
            if self.is_free_of(name, &general) {
                self.set(name, general);
            }
            return (true, true);
        }
        if self.is_free_of(name, ty) {
            self.set(name, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// A type must not be made of itself.
    fn is_free_of(&self, name: &Arc<str>, ty: &Type) -> bool {
        match ty {
            Type::Param(other) => {
                other != name && self.known.get(other).is_none_or(|known| self.is_free_of(name, known))
            }
            other => other.parameters().into_iter().all(|inner| self.is_free_of(name, inner)),
        }
    }
}

/// The one that says less.
pub(super) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if says_less(a, b) { a } else { b }
}

fn says_less(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (a, _) if a.is_dyn() || matches!(a, Type::Param(_)) => true,
        (_, b) if b.is_dyn() || matches!(b, Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => says_less(a, b),
        (Type::Map(k1, v1), Type::Map(k2, v2)) => says_less(k1, k2) && says_less(v1, v2),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
