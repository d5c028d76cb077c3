//! Services: which addresses stand for which backends, in nf_tables and in the maps of the socket programs.
