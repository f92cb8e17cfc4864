//! Requests encoded ahead; only the numbers in keys and values are filled in.

use crate::ledger::Request;
use crate::payload::Layout;
use crate::workload::Kind;

/// The requests of one layout.
#[derive(Debug)]
pub struct Encoder {
    layout: Layout,
    get: Form,
    put: Form,
    cas: Form,
    incr: Form,
    scan: Form,
}

/// One kind of request as bytes, and where in them the key and the values begin.
#[derive(Debug, Default)]
struct Form {
    bytes: Vec<u8>,
    key: usize,
    values: Vec<usize>,
}

/// What a request is made of.
enum Word<'a> {
    Plain(&'a str),
    Key,
    Counter,
    Value,
}

impl Encoder {
    /// An encoder for keys and values of this layout, and scans of so many keys.
    pub fn new(layout: &Layout, scanned: u32) -> Self {
        use Word::{Counter, Key, Plain, Value};
        let scanned = scanned.to_string();
        Encoder {
            get: Form::new(layout, &[Plain("GET"), Key]),
            // The name that every RESP server knows; Pelago takes it for PUT.
            put: Form::new(layout, &[Plain("SET"), Key, Value]),
            cas: Form::new(layout, &[Plain("CAS"), Key, Value, Value]),
            incr: Form::new(layout, &[Plain("INCR"), Counter]),
            scan: Form::new(layout, &[Plain("RANGE"), Key, Plain("+"), Plain("LIMIT"), Plain(&scanned)]),
            layout: layout.clone(),
        }
    }

    /// Appends this request.
    pub fn encode(&mut self, request: &Request, out: &mut Vec<u8>) {
        let Request { kind, key, sequence, expected, .. } = *request;
        match kind {
            Kind::Get | Kind::Learn => self.get.append(&self.layout, key, &[], out),
            Kind::Put => self.put.append(&self.layout, key, &[sequence], out),
            Kind::Cas => self.cas.append(&self.layout, key, &[expected, sequence], out),
            Kind::Incr => self.incr.append(&self.layout, key, &[], out),
            Kind::Scan => self.scan.append(&self.layout, key, &[], out),
        }
    }
}

impl Form {
    fn new(layout: &Layout, words: &[Word<'_>]) -> Self {
        let mut form = Form { bytes: format!("*{}\r\n", words.len()).into_bytes(), ..Form::default() };
        for word in words {
            let bytes = match word {
                Word::Plain(text) => text.as_bytes().to_vec(),
                Word::Key => layout.key(0),
                Word::Counter => layout.counter(0),
                Word::Value => layout.value(0, 0),
            };
            form.bytes.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            match word {
                Word::Plain(_) => {}
                Word::Key | Word::Counter => form.key = form.bytes.len(),
                Word::Value => form.values.push(form.bytes.len()),
            }
            form.bytes.extend_from_slice(&bytes);
            form.bytes.extend_from_slice(b"\r\n");
        }
        form
    }

    fn append(&mut self, layout: &Layout, key: u32, sequences: &[u64], out: &mut Vec<u8>) {
        layout.number_key(&mut self.bytes[self.key..], key);
        for (&start, &sequence) in self.values.iter().zip(sequences) {
            layout.number_value(&mut self.bytes[start..], key, sequence);
        }
        out.extend_from_slice(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of one request.
    fn words(kind: Kind) -> Vec<Vec<u8>> {
        let layout = Layout::new(100_000, 16, 100, None).expect("the default sizes");
        let mut encoder = Encoder::new(&layout, 25);
        let request = Request { kind, key: 0x1_2345, sequence: 0xabc, expected: 0xde, ..Request::default() };
        let mut wire = Vec::new();
        encoder.encode(&Request { key: 9, sequence: 3, expected: 4, ..request }, &mut wire);
        wire.clear();
        encoder.encode(&request, &mut wire);
        // No word holds a line's end, so the lines are the count, and length and word by turns.
        let lines: Vec<&[u8]> = wire.strip_suffix(b"\r\n").expect("ended").split(|&b| b == b'\n').collect();
        let lines: Vec<Vec<u8>> =
            lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec()).collect();
        assert_eq!(lines[0], format!("*{}", (lines.len() - 1) / 2).into_bytes());
        for pair in lines[1..].chunks(2) {
            assert_eq!(pair[0], format!("${}", pair[1].len()).into_bytes());
        }
        lines[1..].chunks(2).map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn requests_are_well_formed() {
        let key = b"k000000000012345".to_vec();
        let layout = Layout::new(100_000, 16, 100, None).expect("the default sizes");
        let (old, new) = (layout.value(0x1_2345, 0xde), layout.value(0x1_2345, 0xabc));
        assert_eq!(words(Kind::Get), [b"GET".to_vec(), key.clone()]);
        assert_eq!(words(Kind::Learn), words(Kind::Get));
        assert_eq!(words(Kind::Put), [b"SET".to_vec(), key.clone(), new.clone()]);
        assert_eq!(words(Kind::Cas), [b"CAS".to_vec(), key.clone(), old, new]);
        assert_eq!(words(Kind::Incr), [b"INCR".to_vec(), b"n000000000012345".to_vec()]);
        let scan = [b"RANGE".to_vec(), key, b"+".to_vec(), b"LIMIT".to_vec(), b"25".to_vec()];
        assert_eq!(words(Kind::Scan), scan);
    }
}
