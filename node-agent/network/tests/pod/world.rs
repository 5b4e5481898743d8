//! A pod, the network outside it, and a guest behind its tap: three network namespaces of this process.
//!
//! The guest is a namespace with a tap device of its own: a thread carries frames between it and the pod's tap, as the
//! VMM would. So the guest has a real network stack, and what reaches it has passed the pod's as a guest's would.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nlink::netlink::link::VethLink;
use nlink::tuntap::{Mode, TunTap};
use nlink::{Connection, Ipv4Address, Ipv4Route, Route};
use pinion_pod_network::GuestLink;

pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 2);
pub(crate) const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
pub(crate) const MTU: u32 = 1450;
/// How long an answer may take on a busy or emulated machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for what should not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);
/// Set where the test's own program has been started once more, as root of a user namespace.
const INNER: &str = "PINION_POD_NETWORK_INNER";

/// The outside and the pod, with a link between them.
pub(crate) struct World {
    pub(crate) outside: File,
    pub(crate) pod: File,
}

/// A new network namespace; it lives as long as its file.
pub(crate) fn namespace() -> Option<File> {
    let made = || -> io::Result<File> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    };
    let file = thread::spawn(made).join().unwrap().ok()?;
    within(&file, || route(|links| async move { links.set_link_up("lo").await.unwrap() }));
    Some(file)
}

/// Runs `work` on a thread in a namespace. Sockets that it opens stay there.
pub(crate) fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Changes links of the calling thread's namespace.
pub(crate) fn route<T, F: Future<Output = T>>(work: impl FnOnce(Connection<Route>) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { work(Connection::<Route>::new().unwrap()).await })
}

impl World {
    /// None, and why is printed, where this process cannot make one; also where it was made and tested by another process.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if let (Some(outside), Some(pod)) = (namespace(), namespace()) {
            if !has_tap(&pod) {
                println!("skipped: no tap devices: /dev/net/tun cannot be used here");
                return None;
            }
            let world = Self { outside, pod };
            world.connect();
            return Some(world);
        }
        if std::env::var_os(INNER).is_none() {
            let program = std::env::current_exe().unwrap();
            let mut command = Command::new("unshare");
            command.arg("-r").arg(program).args(["--exact", test, "--nocapture"]).env(INNER, "1");
            match command.output() {
                Ok(output) if output.status.success() => {
                    print!("{}", String::from_utf8_lossy(&output.stdout));
                    return None;
                }
                Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("unshare") => {
                    panic!("{}", String::from_utf8_lossy(&output.stdout));
                }
                _ => {}
            }
        }
        println!("skipped: this user can make no network namespaces, nor be root of a user namespace");
        None
    }

    /// `veth0` outside, `eth0` in the pod.
    fn connect(&self) {
        let pod = self.pod.try_clone().unwrap();
        within(&self.outside, || {
            route(|links| async move {
                links.add_link(VethLink::new("veth0", "eth0")).await.unwrap();
                links.set_link_netns_fd("eth0", &pod).await.unwrap();
                links.add_address(Ipv4Address::new("veth0", OUTSIDE, 24)).await.unwrap();
                links.set_link_up("veth0").await.unwrap();
            });
        });
        within(&self.pod, || {
            route(|links| async move {
                links.set_link_address("eth0", POD_MAC).await.unwrap();
                links.set_link_mtu("eth0", MTU).await.unwrap();
                links.add_address(Ipv4Address::new("eth0", POD, 24)).await.unwrap();
                links.set_link_up("eth0").await.unwrap();
                links.add_route(Ipv4Route::default_route().gateway(OUTSIDE).dev("eth0")).await.unwrap();
            });
        });
    }
}

fn has_tap(namespace: &File) -> bool {
    within(namespace, || TunTap::builder().name("probe0").mode(Mode::Tap).create().is_ok())
}

/// A guest that runs behind a pod's tap.
pub(crate) struct Guest {
    pub(crate) namespace: File,
    stop: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Guest {
    /// Takes a tap over, with what the guest is told of its network.
    pub(crate) fn start(tap: OwnedFd, link: &GuestLink) -> Self {
        let namespace = namespace().unwrap();
        let told = link.addressing.clone().unwrap();
        let mac = link
            .mac
            .as_ref()
            .map_or([2, 0, 0, 0, 1, 1], |text| text.parse::<pinion_api::MacAddress>().unwrap().0);
        let mtu = link.mtu;
        let own = within(&namespace, move || {
            let own = TunTap::builder().name("eth0").mode(Mode::Tap).vnet_hdr(true).create().unwrap();
            own.set_vnet_hdr_size(12).unwrap();
            fcntl(&own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            route(|links| async move {
                links.set_link_address("eth0", mac).await.unwrap();
                links.set_link_mtu("eth0", mtu).await.unwrap();
                links.add_address(Ipv4Address::new("eth0", told.address, told.prefix)).await.unwrap();
                links.set_link_up("eth0").await.unwrap();
                let route = Ipv4Route::default_route().gateway(told.router.unwrap()).dev("eth0");
                links.add_route(route).await.unwrap();
            });
            own.into_file()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let pump = thread::spawn({
            let stop = Arc::clone(&stop);
            move || pump(&File::from(tap), &own, &stop)
        });
        Self { namespace, stop, pump: Some(pump) }
    }
}

impl Drop for Guest {
    /// The pod's tap is gone afterwards.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pump) = self.pump.take() {
            pump.join().unwrap();
        }
    }
}

/// Carries frames, each behind its virtio header, both ways.
fn pump(mut one: &File, mut other: &File, stop: &AtomicBool) {
    let mut frame = vec![0; 70_000];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [one, other].map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::from(20_u8)).unwrap();
        while let Ok(length) = one.read(&mut frame) {
            // Lost where there is no room, as on any link.
            let _ = other.write(&frame[..length]);
        }
        while let Ok(length) = other.read(&mut frame) {
            let _ = one.write(&frame[..length]);
        }
    }
}

/// Whoever connects or sends to `address` in a namespace is told by `who` by what address it is known there.
pub(crate) fn answer(who: &'static str, namespace: &File, address: Ipv4Addr, port: u16) {
    let (tcp, udp) = within(namespace, || {
        let at = (address, port);
        (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap())
    });
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = write!(stream, "{who} sees {}", peer.ip());
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{who} sees {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// Who answers over TCP, and whom it sees.
pub(crate) fn tcp(from: &File, to: Ipv4Addr, port: u16) -> String {
    ask_tcp(from, to, port, PATIENCE).unwrap_or_else(|e| e.to_string())
}

/// The same over UDP.
pub(crate) fn udp(from: &File, to: Ipv4Addr, port: u16) -> String {
    ask_udp(from, to, port, PATIENCE).unwrap_or_else(|e| e.to_string())
}

/// Nobody answers, neither over TCP nor over UDP.
pub(crate) fn nobody(from: &File, to: Ipv4Addr, port: u16) -> bool {
    ask_tcp(from, to, port, SILENCE).is_err() && ask_udp(from, to, port, SILENCE).is_err()
}

fn ask_tcp(from: &File, to: Ipv4Addr, port: u16, patience: Duration) -> io::Result<String> {
    within(from, || {
        let mut stream = TcpStream::connect_timeout(&(to, port).into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

fn ask_udp(from: &File, to: Ipv4Addr, port: u16, patience: Duration) -> io::Result<String> {
    within(from, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(b"who am I", (to, port))?;
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

/// What a socket hears next.
pub(crate) fn hear(socket: &UdpSocket) -> Vec<u8> {
    listen(socket, PATIENCE).unwrap()
}

/// A socket hears nothing.
pub(crate) fn quiet(socket: &UdpSocket) -> bool {
    listen(socket, SILENCE).is_err()
}

fn listen(socket: &UdpSocket, patience: Duration) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}
