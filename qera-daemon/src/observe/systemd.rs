//! Tells a service manager (sd_notify) that the daemon is ready, what it does, and that it ends.
//!
//! The protocol is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. No
//! result depends on it, so that nothing here can fail; without a service manager nothing happens.

use core::time::Duration;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How long is waited for a manager that does not read.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one: `READY=1`, `STATUS=...`, `STOPPING=1`.
pub(crate) fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        // There is nobody who could be told of a failure.
        let _ = send(&socket, state);
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(SEND_LIMIT))?;
    sender.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// An address from a path, or from a name in Linux' abstract namespace, which has an `@` in front.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(socket.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_with_a_path_is_told() {
        let folder = std::env::temp_dir().join(format!("qera-notify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\nSTATUS=watching").unwrap();
        send(path.as_os_str(), "STOPPING=1").unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=watching");
        assert_eq!(received(&socket), "STOPPING=1");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(send(path.as_os_str(), "STOPPING=1").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_told() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("qera-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        assert_eq!(received(&socket), "READY=1");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        for socket in ["", "@", "nowhere/at/all", "vsock:2:1234", &"x".repeat(500)] {
            assert!(send(OsStr::new(socket), "READY=1").is_err(), "{socket}");
        }
    }
}
