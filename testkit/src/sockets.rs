//! Sockets of servers that a test plays itself.

use tokio::net::{TcpListener, UdpSocket};

/// One free port of loopback for TCP and for UDP, as a name server has it.
///
/// # Panics
/// If none is found.
pub async fn tcp_and_udp() -> (TcpListener, UdpSocket) {
    for _ in 0..32 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("its address")).await {
            return (tcp, udp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
