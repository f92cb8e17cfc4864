//! The mirror checkpoint: a second state machine on disk, its store and its file format.
