//! Composes a node.
