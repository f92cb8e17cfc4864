//! One JSON object per line.
//!
//! ```text
//! {"key":"user:7","value":"Ann"}
//! {"key":"session","value":"x","ttl_ms":59000}
//! {"key":"picture","value_base64":"iVBORw0KGgo="}
//! ```
//!
//! What is UTF-8 is text under `key` and `value`; other bytes are base64 under `key_base64` and
//! `value_base64`. `key_hex` and `value_hex`, as `pelago scan --json` writes them, are read too.

use serde_json::{Map, Value, json};

use super::base64;
use crate::client::bulk::Put;
use crate::protocol::hex_digit;

/// Appends a line.
pub fn write(key: &[u8], value: &[u8], life: Option<u64>, out: &mut Vec<u8>) {
    let mut object = Map::new();
    for (name, bytes) in [("key", key), ("value", value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(name.to_owned(), json!(text)),
            Err(_) => object.insert(format!("{name}_base64"), json!(base64::encode(bytes))),
        };
    }
    if let Some(life) = life {
        object.insert("ttl_ms".to_owned(), json!(life));
    }
    out.extend_from_slice(Value::Object(object).to_string().as_bytes());
    out.push(b'\n');
}

/// Reads a line that is not empty.
pub(super) fn read(line: &[u8]) -> Result<Put, String> {
    let object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("it is JSON and no object".to_owned()),
        Err(error) => return Err(format!("it is no JSON: {error}")),
    };
    let (mut key, mut value, mut life) = (None, None, None);
    for (name, what) in object {
        let (place, bytes) = match (name.as_str(), &what) {
            ("ttl_ms", Value::Null) => continue,
            ("ttl_ms", what) => {
                let number = what.as_u64().filter(|life| *life > 0);
                life = Some(number.ok_or("ttl_ms is no number of milliseconds from 1 on")?);
                continue;
            }
            ("key", Value::String(text)) => (&mut key, Some(text.as_bytes().to_vec())),
            ("value", Value::String(text)) => (&mut value, Some(text.as_bytes().to_vec())),
            ("key_base64", Value::String(text)) => (&mut key, base64::decode(text)),
            ("value_base64", Value::String(text)) => (&mut value, base64::decode(text)),
            ("key_hex", Value::String(text)) => (&mut key, hex(text)),
            ("value_hex", Value::String(text)) => (&mut value, hex(text)),
            ("key" | "value" | "key_base64" | "value_base64" | "key_hex" | "value_hex", _) => {
                return Err(format!("{name} is no text"));
            }
            _ => {
                let name: String = name.chars().take(40).collect();
                return Err(format!(
                    "the field \"{name}\" is not known; there are key, value, ttl_ms, and key and value with _base64 or \
                     _hex"
                ));
            }
        };
        let bytes = bytes.ok_or_else(|| format!("{name} is not what its name says"))?;
        if place.replace(bytes).is_some() {
            return Err("it has two keys or two values".to_owned());
        }
    }
    let key = key.ok_or("it has no key")?;
    let value = value.ok_or("it has no value")?;
    Ok(Put { key, value, life })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_they_look() {
        for (key, value, life, line) in [
            (&b"k"[..], "ä\n".as_bytes(), None, "{\"key\":\"k\",\"value\":\"ä\\n\"}\n"),
            (b"\xff", b"", Some(5), "{\"key_base64\":\"/w==\",\"ttl_ms\":5,\"value\":\"\"}\n"),
        ] {
            let mut out = Vec::new();
            write(key, value, life, &mut out);
            assert_eq!(String::from_utf8(out).expect("text"), line);
        }
    }

    #[test]
    fn what_scan_writes_is_read_and_what_is_wrong_is_said() {
        let put = read(br#"{"key":"k","value_hex":"ff00"}"#).expect("as scan writes it");
        assert_eq!(put, Put { key: b"k".to_vec(), value: vec![0xff, 0], life: None });
        for (line, why) in [
            ("[1]", "no object"),
            ("{", "no JSON"),
            (r#"{"value":"v"}"#, "no key"),
            (r#"{"key":"k"}"#, "no value"),
            (r#"{"key":"k","value":null}"#, "value is no text"),
            (r#"{"key":"k","key_hex":"00","value":"v"}"#, "two keys"),
            (r#"{"key":"k","value_base64":"!"}"#, "value_base64"),
            (r#"{"key":"k","value_hex":"0"}"#, "value_hex"),
            (r#"{"key":"k","value":"v","ttl":5}"#, "\"ttl\" is not known"),
            (r#"{"key":"k","value":"v","ttl_ms":0}"#, "ttl_ms"),
        ] {
            let said = read(line.as_bytes()).expect_err(line);
            assert!(said.contains(why), "{line}: {said}");
        }
    }
}
