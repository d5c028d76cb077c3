//! Maps of the tc programs: local endpoints, nodes, configuration, counters, drop events.
