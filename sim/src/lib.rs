//! The deterministic world around whole nodes.
pub mod history;
pub mod machine;
pub mod world;
