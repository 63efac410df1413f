//! Task records, as a controller or the database of a stopped one shows them.

use bytes::Bytes;
use remuda_proto::message::content::DbOptions;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Which records are asked for, and what of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Find {
    /// The query, in the language of ipyparallel's databases: `{}` for all records.
    pub query: Value,
    /// The fields wanted; none: all but the buffers. `buffers` and `result_buffers` have to be named.
    pub keys: Option<Vec<String>>,
    /// What a stock controller does not look at.
    pub options: DbOptions,
}

impl Default for Find {
    fn default() -> Self {
        Self { query: json!({}), keys: None, options: DbOptions::default() }
    }
}

impl Find {
    /// The content of the `db_request` that asks for it.
    pub fn content(&self) -> Value {
        json!({"query": self.query, "keys": self.keys, "remuda": self.options})
    }
}

/// A record, or what was asked for of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The fields by name.
    pub fields: Map<String, Value>,
    /// The buffers of the request, if they were asked for.
    pub buffers: Vec<Bytes>,
    /// The buffers of the reply, if they were asked for.
    pub result_buffers: Vec<Bytes>,
}

/// Reads the content of a `db_reply`, and gives each record its buffers.
///
/// # Errors
/// What makes no sense in it.
pub fn read(content: Value, buffers: Vec<Bytes>) -> Result<Vec<Record>, String> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        records: Vec<Map<String, Value>>,
        #[serde(default)]
        buffer_lens: Option<Vec<usize>>,
        #[serde(default)]
        result_buffer_lens: Option<Vec<usize>>,
    }
    let reply: Reply = serde_json::from_value(content).map_err(|error| error.to_string())?;
    let count = |lens: &Option<Vec<usize>>, at: usize| match lens {
        None => Ok(0),
        Some(lens) => lens.get(at).copied().ok_or_else(|| format!("it does not say how many buffers record {at} has")),
    };
    let mut buffers = buffers.into_iter();
    let mut records = Vec::with_capacity(reply.records.len());
    for (at, fields) in reply.records.into_iter().enumerate() {
        let [own, results] = [count(&reply.buffer_lens, at)?, count(&reply.result_buffer_lens, at)?];
        if buffers.len() < own.saturating_add(results) {
            return Err(format!(
                "it says that record {at} has {own} and {results} buffers, and has {} left",
                buffers.len()
            ));
        }
        let own: Vec<Bytes> = buffers.by_ref().take(own).collect();
        let results: Vec<Bytes> = buffers.by_ref().take(results).collect();
        records.push(Record { fields, buffers: own, result_buffers: results });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_gets_its_own_buffers() {
        let content = json!({"status": "ok", "records": [{"msg_id": "a"}, {"msg_id": "b"}],
            "buffer_lens": [0, 2], "result_buffer_lens": [1, 1]});
        let buffers: Vec<Bytes> = ["r", "x", "y", "s"].map(Bytes::from).to_vec();
        let records = read(content, buffers).unwrap();
        assert_eq!((&records[0].buffers[..], &records[0].result_buffers[..]), (&[][..], &[Bytes::from("r")][..]));
        assert_eq!(records[1].buffers, ["x", "y"].map(Bytes::from));
        assert_eq!(
            (&records[1].fields["msg_id"], &records[1].result_buffers[..]),
            (&json!("b"), &[Bytes::from("s")][..])
        );
    }

    #[test]
    fn a_reply_that_contradicts_itself_is_told() {
        let short = json!({"records": [{"msg_id": "a"}], "result_buffer_lens": [3]});
        assert!(read(short, vec![Bytes::new()]).unwrap_err().contains("3 buffers"));
        let long = json!({"records": [{}, {}], "buffer_lens": [0]});
        assert!(read(long, Vec::new()).unwrap_err().contains("record 1"));
        let huge = json!({"records": [{}], "buffer_lens": [usize::MAX], "result_buffer_lens": [usize::MAX]});
        assert!(read(huge, Vec::new()).is_err());
        assert!(read(json!({"records": 5}), Vec::new()).is_err());
    }

    #[test]
    fn what_stock_does_not_know_stands_under_one_key() {
        let find = Find {
            keys: Some(vec!["msg_id".into()]),
            options: DbOptions { limit: Some(2), ..DbOptions::default() },
            ..Find::default()
        };
        assert_eq!(
            find.content(),
            json!({"query": {}, "keys": ["msg_id"], "remuda": {"limit": 2, "order": "arrival", "descending": false}})
        );
    }
}
