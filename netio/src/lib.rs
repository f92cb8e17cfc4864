//! The one network layer between nodes: framing, handshake, links and demultiplexing by group id.
