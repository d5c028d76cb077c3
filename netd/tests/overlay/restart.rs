//! A restart of the daemon changes nothing that is right and interrupts no packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::world::{Cluster, Echo, HOST_GW_DUAL, VXLAN_DUAL, config, udp};

#[test]
fn a_restart_changes_nothing() {
    for net_conf in [VXLAN_DUAL, HOST_GW_DUAL] {
        let mut config = config(net_conf);
        config.blackhole_route = true;
        let mut cluster = Cluster::new(3, &config);
        let before = cluster.hosts[0].dump();
        assert!(before.contains("blackhole 10.244.1.0/24"), "{before}");
        for _ in 0..3 {
            cluster.restart(0, &config);
            assert_eq!(cluster.hosts[0].dump(), before, "ifindexes and handles included");
            assert_eq!(cluster.daemons[0].status.borrow().changes, 0, "it found nothing to do");
        }
    }
}

/// Datagrams every millisecond from pod to pod and back while `act` runs; returns (sent, answered).
fn stream_during(cluster: &mut Cluster, act: impl FnOnce(&mut Cluster)) -> (u32, u32) {
    let (a, b) = (&cluster.hosts[0], &cluster.hosts[1]);
    let echo = Echo::new(&b.pod, b.pod_v4());
    let socket = udp(&a.pod, a.pod_v4());
    let target = echo.address;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let stream = std::thread::spawn(move || {
        let (mut sent, mut answered) = (0_u32, 0_u32);
        let mut buffer = [0; 256];
        while !stopped.load(Ordering::Relaxed) {
            socket.send_to(&sent.to_be_bytes(), target).expect("sent");
            sent += 1;
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                if socket.recv_from(&mut buffer).is_ok() {
                    answered += 1;
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        (sent, answered)
    });
    act(cluster);
    stop.store(true, Ordering::Relaxed);
    stream.join().expect("no panic")
}

#[test]
fn ten_restarts_lose_no_datagram() {
    for net_conf in [VXLAN_DUAL, HOST_GW_DUAL] {
        let config = config(net_conf);
        let mut cluster = Cluster::new(2, &config);
        let (sent, answered) = stream_during(&mut cluster, |cluster| {
            for _ in 0..10 {
                cluster.restart(0, &config);
                cluster.restart(1, &config);
            }
        });
        assert!(sent > 20, "{sent}");
        assert_eq!(sent, answered);
    }
}

#[test]
fn peers_that_come_and_go_do_not_disturb_the_others() {
    let mut cluster = Cluster::new(3, &config(VXLAN_DUAL));
    let (sent, answered) = stream_during(&mut cluster, |cluster| {
        let nodes = cluster.nodes();
        for round in 0..20 {
            let peers = if round % 2 == 0 { vec![nodes[1].clone()] } else { nodes[1..].to_vec() };
            cluster.daemons[0].change(|snapshot| snapshot.peers = peers);
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    assert_eq!(sent, answered);
}
