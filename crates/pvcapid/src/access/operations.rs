//! What each route needs, as its annotation declares beside the handler.
//!
//! The annotation's `security` is the declaration: `security(("token" = ["operator"]))` needs that role,
//! `security(())` needs nothing. The table is made from the description of the API when the daemon starts, so what is
//! documented and what is enforced can not differ. A route without a declaration is refused.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use actix_web::http::Method;
use pvc_api::PREFIX;
use pvc_core::access::Role;
use serde_json::Value;

use crate::routes::health;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: everybody is answered.
    Nothing,
    /// A caller with this role.
    Role(Role),
    /// It is not declared: nobody is let through.
    Undeclared,
}

/// An operation of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Its name in the description.
    pub(crate) id: String,
    /// What it needs.
    pub(crate) need: Need,
}

/// Every operation by the pattern of its path and its method.
#[derive(Debug, Default)]
pub(crate) struct Operations(HashMap<String, Methods>);

/// The operations of a path by their methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Methods(BTreeMap<String, Operation>);

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        // It is answered wherever GET is.
        if self.0.contains_key(Method::GET.as_str()) {
            names.push(Method::HEAD.as_str());
        }
        names.sort_unstable();
        f.write_str(&names.join(", "))
    }
}

/// What is known of a request by its path and method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked<'a> {
    /// That operation.
    Found(&'a Operation),
    /// The path is one of the API, with other methods: these.
    OtherMethods(&'a Methods),
    /// There is no such path.
    NoSuchPath,
}

impl Operations {
    /// The operations of that description.
    pub(crate) fn of(document: &Value) -> Operations {
        let mut all: HashMap<String, Methods> = HashMap::new();
        let paths = document.get("paths").and_then(Value::as_object);
        for (path, methods) in paths.into_iter().flatten() {
            let methods: BTreeMap<String, Operation> = methods
                .as_object()
                .into_iter()
                .flatten()
                .map(|(method, operation)| (method.to_ascii_uppercase(), describe(operation)))
                .collect();
            let methods = Methods(methods);
            // The root is there with and without its slash.
            if path == "/" {
                all.insert(PREFIX.to_owned(), methods.clone());
            }
            all.insert(format!("{PREFIX}{path}"), methods);
        }
        // For load balancers, which have no token; these two stand outside of the API and its description.
        for path in [health::ALIVE, health::READY] {
            let open = Operation {
                id: path.to_owned(),
                need: Need::Nothing,
            };
            let methods = Methods(BTreeMap::from([(Method::GET.to_string(), open)]));
            all.insert(path.to_owned(), methods);
        }
        Operations(all)
    }

    /// The operation behind a pattern, as the router knows it, and a method.
    pub(crate) fn look(&self, pattern: Option<&str>, method: &Method) -> Looked<'_> {
        let Some(methods) = pattern.and_then(|pattern| self.0.get(pattern)) else {
            return Looked::NoSuchPath;
        };
        methods
            .0
            .get(method.as_str())
            .map_or(Looked::OtherMethods(methods), Looked::Found)
    }
}

fn describe(operation: &Value) -> Operation {
    Operation {
        id: operation
            .get("operationId")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        need: need(operation.get("security")).unwrap_or(Need::Undeclared),
    }
}

/// What these alternatives need; `None` if they say nothing that is understood.
fn need(security: Option<&Value>) -> Option<Need> {
    let alternatives = security?.as_array()?;
    // One that asks for nothing is open to everybody, whatever stands beside it.
    if alternatives
        .iter()
        .any(|one| one.as_object().is_some_and(serde_json::Map::is_empty))
    {
        return Some(Need::Nothing);
    }
    let role = |one: &Value| -> Option<Role> {
        let [scopes] = one.as_object()?.values().collect::<Vec<_>>()[..] else {
            return None;
        };
        let [role] = scopes.as_array()?.as_slice() else {
            return None;
        };
        role.as_str()?.parse().ok()
    };
    let roles: Vec<Role> = alternatives.iter().map(role).collect::<Option<_>>()?;
    let first = *roles.first()?;
    roles
        .iter()
        .all(|role| *role == first)
        .then_some(Need::Role(first))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_declaration_decides_and_what_is_not_understood_lets_nobody_in() {
        let check = |security: Value, expected: Need| {
            let document = json!({"paths": {"/x": {"post": {"operationId": "x", "security": security}}}});
            let operations = Operations::of(&document);
            let Looked::Found(found) = operations.look(Some("/api/v1/x"), &Method::POST) else {
                panic!("not found");
            };
            assert_eq!((found.id.as_str(), found.need), ("x", expected));
        };
        check(json!([{}]), Need::Nothing);
        check(json!([{"token": ["admin"]}]), Need::Role(Role::Admin));
        check(
            json!([{"token": ["viewer"]}, {"session": ["viewer"]}]),
            Need::Role(Role::Viewer),
        );
        for bad in [
            json!(null),
            json!([]),
            json!([{"token": []}]),
            json!([{"token": ["root"]}]),
            json!([{"token": ["viewer"]}, {"session": ["admin"]}]),
            json!([{"token": ["viewer", "admin"]}]),
            json!([{"token": ["viewer"], "session": ["viewer"]}]),
        ] {
            check(bad, Need::Undeclared);
        }
        let operations = Operations::of(&json!({"paths": {"/": {"get": {"security": [{}]}}}}));
        for pattern in ["/api/v1", "/api/v1/"] {
            assert!(matches!(
                operations.look(Some(pattern), &Method::GET),
                Looked::Found(_)
            ));
        }
        let Looked::OtherMethods(methods) = operations.look(Some("/api/v1/"), &Method::PUT) else {
            panic!("it has no PUT");
        };
        assert_eq!(methods.to_string(), "GET, HEAD");
        assert_eq!(
            operations.look(Some("/api/v1/y"), &Method::GET),
            Looked::NoSuchPath
        );
        assert_eq!(operations.look(None, &Method::GET), Looked::NoSuchPath);
    }
}
