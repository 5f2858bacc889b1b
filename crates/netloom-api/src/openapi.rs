//! The OpenAPI document, made of the table of routes and the wire types, so that it cannot lie.

use crate::cluster::{Cluster, ForgetHost, Forgotten, Host, Initialised, Nothing};
use crate::routes::{ROUTES, Response, Route};
use crate::types::{
    Address, AuditReport, AuditRequest, CreateNetwork, Endpoint, ErrorBody, Network, Pool, Port,
    Removed, Reservation, Status, UninstallRequest,
};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The API as an OpenAPI 3.1 document.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(route.method.name().to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "netloomd local API",
            "version": "1",
            "description": "HTTP and JSON on a unix socket; only root and the socket's group may connect.",
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

/// The schema of every type that a route names, and of those inside them.
fn schemas() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    macro_rules! include {
        ($($name:ident),*) => {
            $(let _: schemars::Schema = generator.subschema_for::<$name>();)*
        };
    }
    include!(
        Address,
        AuditReport,
        AuditRequest,
        Cluster,
        CreateNetwork,
        Endpoint,
        ErrorBody,
        ForgetHost,
        Forgotten,
        Host,
        Initialised,
        Network,
        Nothing,
        Pool,
        Port,
        Removed,
        Reservation,
        Status,
        UninstallRequest
    );
    SchemaGenerator::take_definitions(&mut generator, true)
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": {
            (if route.response == Response::Empty { "204" } else { "200" }): success(route.response),
            "default": {
                "description": "What happened, why, and what to do.",
                "content": json_content(&reference("ErrorBody")),
            },
        },
    });
    if let (Some(name), Value::Object(fields)) = (route.request, &mut operation) {
        let body = json!({ "required": true, "content": json_content(&reference(name)) });
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

fn parameters(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let in_query = (route.operation == "addresses").then(|| {
        json!({"name": "subnet", "in": "query", "required": false, "schema": {"type": "string"}})
    });
    in_path.chain(in_query).collect()
}

fn success(response: Response) -> Value {
    match response {
        Response::Empty => json!({ "description": "Done." }),
        Response::Text(media) => json!({
            "description": "Text.",
            "content": { media: { "schema": { "type": "string" } } },
        }),
        Response::Document => json!({
            "description": "The document.",
            "content": json_content(&json!({ "type": "object" })),
        }),
        Response::One(name) => json!({
            "description": name,
            "content": json_content(&reference(name)),
        }),
        Response::List(name) => json!({
            "description": format!("A list of {name}"),
            "content": json_content(&json!({ "type": "array", "items": reference(name) })),
        }),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_route_names_has_a_schema() {
        let schemas = schemas();
        for route in ROUTES {
            let answered = match route.response {
                Response::One(name) | Response::List(name) => Some(name),
                _ => None,
            };
            for name in route.request.into_iter().chain(answered) {
                assert!(schemas.contains_key(name), "{} names {name}", route.path);
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        found.push(target.clone());
                    }
                    map.values().for_each(|inner| walk(inner, found));
                }
                Value::Array(items) => items.iter().for_each(|inner| walk(inner, found)),
                _ => {}
            }
        }
        let document = openapi();
        let mut found = Vec::new();
        walk(&document, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{target} leads nowhere"
            );
        }
    }
}
