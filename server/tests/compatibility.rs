//! `docs/redis-compatibility.md` is what the table in the code says.

use std::path::Path;

use server::protocol::compat;

#[test]
fn the_document_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/redis-compatibility.md");
    let wanted = compat::document();
    if std::env::var_os("PELAGO_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "docs/redis-compatibility.md differs from the table at line {}; run PELAGO_WRITE_DOCS=1 cargo test -p server \
         --test compatibility",
        line.map_or(found.lines().count().min(wanted.lines().count()), |line| line) + 1
    );
}
