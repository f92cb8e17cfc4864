//! The deterministic world around whole nodes.
