//! What an expression may speak of: variables, functions, and the fields of types.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Program;
use super::checker;
use super::declarations::{Functions, Overload};
use super::issues::Issues;
use super::library;
use super::shape::Shape;
use super::syntax::Syntax;
use super::types::Type;
use super::value::escape;

/// Stack of the thread that compiles. The parser takes up to 128 KiB for each of the 250 levels that an expression
/// may be nested; a thread that serves requests has 2 MiB. What is not used is never mapped.
const STACK_BYTES: usize = 64 << 20;

/// Declarations that expressions are compiled against. A copy shares what is large.
#[derive(Clone)]
pub struct Environment {
    syntax: Arc<Syntax>,
    functions: Arc<Functions>,
    variables: BTreeMap<String, Type>,
    objects: Objects,
}

/// Types with fields.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    fields: BTreeMap<Arc<str>, BTreeMap<String, Type>>,
    /// `Object`, `Object.spec`, ... and `JSONPatch` are types.
    patches: bool,
}

/// What is known of a field.
pub(super) enum Field {
    Of(Type),
    Missing,
    /// The type itself is not known.
    OfUnknown,
}

impl Environment {
    /// The libraries that every expression in the API has (upstream's `environment.MustBaseEnvSet`).
    #[must_use]
    pub fn base() -> Self {
        let mut functions = Functions::default();
        library::TABLES.iter().for_each(|table| functions.declare(table));
        Self {
            syntax: Arc::new(Syntax::new(false)),
            functions: Arc::new(functions),
            variables: BTreeMap::new(),
            objects: Objects::default(),
        }
    }

    /// With the macro `cel.bind`.
    #[must_use]
    pub fn with_bind(mut self) -> Self {
        self.syntax = Arc::new(Syntax::new(true));
        self
    }

    /// With what expressions that make patches need: `Object{}`, `JSONPatch{}`, `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_patches(mut self) -> Self {
        self.objects.patches = true;
        Arc::make_mut(&mut self.functions).declare(library::jsonpatch::DECLARATIONS);
        self
    }

    /// With functions that can be compiled and are never run here.
    #[must_use]
    pub fn with_functions(mut self, declarations: &[&'static str]) -> Self {
        Arc::make_mut(&mut self.functions).declare(declarations);
        self
    }

    /// With a variable. A name with a dot is found as such, before a field of what stands before the dot.
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.to_owned(), ty);
        self
    }

    /// With a variable of a shape, whose objects get names from `type_name`.
    #[must_use]
    pub fn shaped(mut self, name: &str, shape: &Shape, type_name: &str) -> Self {
        let ty = self.objects.declare(shape, type_name);
        self.variable(name, ty)
    }

    /// The type of a shape.
    pub fn type_of(&mut self, shape: &Shape, type_name: &str) -> Type {
        self.objects.declare(shape, type_name)
    }

    /// Adds or changes a field of an object type.
    pub fn set_field(&mut self, object: &str, field: &str, ty: Type) {
        self.objects.fields.entry(object.into()).or_default().insert(field.to_owned(), ty);
    }

    /// Parses and checks an expression.
    ///
    /// # Errors
    /// Syntax errors, or if there are none the errors of types, or if there are none those of literals.
    pub fn compile(&self, text: &str) -> Result<Program, Issues> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK_BYTES);
            let compiling = thread.spawn_scoped(scope, || {
                let (mut expression, source) = self.syntax.parse(text)?;
                let facts = checker::check(&mut expression, &source, text, self)?;
                Ok(Program { expression, facts })
            });
            match compiling.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(compiled)) => compiled,
                Ok(Err(_)) => Err(Issues::nowhere("internal error while compiling".to_owned())),
                Err(error) => Err(Issues::nowhere(format!("cannot compile now: {error}"))),
            }
        })
    }

    pub(super) fn overloads(&self, name: &str) -> Option<(&'static str, &[Arc<Overload>])> {
        self.functions.overloads(name)
    }

    pub(super) fn field(&self, object: &str, name: &str) -> Field {
        self.objects.field(object, name)
    }

    /// A variable, or a type by its name.
    pub(super) fn ident(&self, name: &str) -> Option<Type> {
        if let Some(ty) = self.variables.get(name) {
            return Some(ty.clone());
        }
        let of = |ty: Type| Some(Type::Type(Some(Arc::new(ty))));
        match name {
            "bool" | "bytes" | "double" | "int" | "string" | "uint" => of(Type::named(name)),
            "null_type" => of(Type::Null),
            "list" => of(Type::list(Type::Dyn)),
            "map" => of(Type::map(Type::Dyn, Type::Dyn)),
            "type" => of(Type::Type(None)),
            "optional_type" => of(Type::optional(Type::Dyn)),
            "google.protobuf.Duration" => of(Type::Duration),
            "google.protobuf.Timestamp" => of(Type::Timestamp),
            _ if library::TYPES.contains(&name) => of(Type::named(name)),
            _ if self.objects.is_known(name) => of(Type::object(name)),
            _ => None,
        }
    }
}

impl Objects {
    fn declare(&mut self, shape: &Shape, name: &str) -> Type {
        match shape {
            Shape::Plain { ty, .. } => ty.clone(),
            Shape::List { items, .. } => Type::list(self.declare(items, &format!("{name}.@idx"))),
            Shape::Map { key, values, .. } => {
                Type::map(self.declare(key, name), self.declare(values, &format!("{name}.@elem")))
            }
            Shape::Object { name: own, fields, .. } => {
                let name = own.unwrap_or(name);
                let known = fields
                    .iter()
                    .map(|(field, shape)| (field.clone(), self.declare(shape, &format!("{name}.{field}"))))
                    .collect();
                self.fields.insert(name.into(), known);
                Type::object(name)
            }
        }
    }

    fn is_patch(&self, name: &str) -> bool {
        self.patches && (name == "Object" || name.starts_with("Object."))
    }

    fn is_known(&self, name: &str) -> bool {
        self.fields.contains_key(name) || self.is_patch(name) || (self.patches && name == "JSONPatch")
    }

    fn field(&self, object: &str, name: &str) -> Field {
        if self.is_patch(object) {
            return Field::Of(Type::Dyn);
        }
        if self.patches && object == "JSONPatch" {
            return match name {
                "op" | "path" | "from" => Field::Of(Type::Str),
                "value" => Field::Of(Type::Dyn),
                _ => Field::Missing,
            };
        }
        match self.fields.get(object) {
            None => Field::OfUnknown,
            Some(fields) => {
                // Words of the language may stand as fields as they are (`self.namespace`).
                let found = fields.get(name).or_else(|| {
                    let escaped = escape(name)?;
                    fields.get(&escaped).filter(|_| escaped == format!("__{name}__"))
                });
                found.cloned().map_or(Field::Missing, Field::Of)
            }
        }
    }
}
