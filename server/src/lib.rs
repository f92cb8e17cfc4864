//! Composes a node.

pub mod config;
pub mod protocol;
pub mod node;
pub mod status;
pub mod connection;
pub mod runtime;
