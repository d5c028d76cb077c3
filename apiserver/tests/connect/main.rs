//! exec, logs, port-forward and proxies: the stock kubectl against our server, with a kubelet's endpoint that runs real
//! commands and reaches real ports.

mod cluster;
mod errors;
mod kubectl;
mod kubelet;
mod proxy;
