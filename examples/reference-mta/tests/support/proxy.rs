//! A TCP relay on loopback that can stop forwarding without closing anything: a network that is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub struct Proxy {
    pub address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let cut = cut.clone();
                std::thread::spawn(move || {
                    wait(&cut);
                    if let Ok(far) = TcpStream::connect(to) {
                        relay(&near, &far, &cut);
                    }
                });
            }
        });
        Proxy { address, is_cut }
    }

    /// While it is cut, nothing passes in either direction, and nobody is told. What was sent comes late.
    pub fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
    }
}

fn wait(cut: &AtomicBool) {
    while cut.load(Ordering::SeqCst) {
        super::pause(Duration::from_millis(20));
    }
}

fn relay(near: &TcpStream, far: &TcpStream, cut: &Arc<AtomicBool>) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (Ok(back_from), Ok(back_to)) = (far.try_clone(), near.try_clone()) else { return };
    let back_cut = cut.clone();
    let back = std::thread::spawn(move || copy(back_from, back_to, &back_cut));
    if let (Ok(from), Ok(to)) = (near.try_clone(), far.try_clone()) {
        copy(from, to, cut);
    }
    let _ = back.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        wait(cut);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    wait(cut);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
