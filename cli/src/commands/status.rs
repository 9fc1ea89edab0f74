//! `status`: what the server is doing.

use serde_json::Value;

use super::Session;
use crate::output::{Format, Table};

pub(super) async fn status(session: &Session) -> anyhow::Result<()> {
    let status = session.client.get(&["v1", "status"]).await?;
    if session.output.format() != Format::Table {
        return session.output.document(&status);
    }
    let (lists, facts) = split(status);
    session.output.table(&Table::facts(&facts))?;
    for list in lists {
        session.output.table(&Table::of_objects(&list, &["stream", "name"]))?;
    }
    Ok(())
}

/// Lists of objects become tables of their own; views nested in streams too.
fn split(status: Value) -> (Vec<Vec<Value>>, Value) {
    let Value::Object(members) = status else { return (vec![], status) };
    let (mut lists, mut facts) = (vec![], serde_json::Map::new());
    for (name, member) in members {
        match member {
            Value::Array(mut items) if items.iter().all(Value::is_object) => {
                let inner: Vec<Value> = items.iter_mut().flat_map(take_lists).collect();
                lists.extend([items, inner].into_iter().filter(|list| !list.is_empty()));
            }
            other => {
                facts.insert(name, other);
            }
        }
    }
    (lists, Value::Object(facts))
}

/// Takes the `views` out of a stream.
fn take_lists(item: &mut Value) -> Vec<Value> {
    match item.as_object_mut().and_then(|members| members.remove("views")) {
        Some(Value::Array(views)) => views,
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn streams_and_their_views_are_tables_of_their_own() {
        let status =
            json!({"version": "1", "streams": [{"stream": "s", "views": [{"view": "v"}]}], "runs": {"queued": 0}});
        let (lists, facts) = split(status);
        assert_eq!(lists, [vec![json!({"stream": "s"})], vec![json!({"view": "v"})]]);
        assert_eq!(facts, json!({"version": "1", "runs": {"queued": 0}}));
    }
}
