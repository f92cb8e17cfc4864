//! Composes a node: configuration, client protocol, groups, log and network.
//!
//! [`node`] holds the deterministic parts, [`runtime`] the threads around them, [`connection`]
//! the clients, [`protocol`] their language, [`admin`] HTTP for operators.

pub mod admin;
pub mod base64;
pub mod cli;
pub mod client;
pub mod config;
pub mod connection;
pub mod demo;
#[doc(hidden)]
pub mod fuzz;
pub mod node;
pub mod protocol;
pub mod runtime;
pub mod status;
