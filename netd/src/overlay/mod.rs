//! The overlay: tunnel devices, neighbours, forwarding entries, routes and masquerade rules.
