//! A client on a plain socket: one command, one reply, no pipelining, no library of ours.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects, reads the greeting and says EHLO.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let mut client = Client::raw(address)?;
        client.expect(2)?;
        client.command("EHLO load.test", 2)?;
        Ok(client)
    }

    /// Connects and does nothing more.
    pub fn raw(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    /// Connects from another loopback address; `None` where the system has only one (not Linux).
    pub fn from_source(source: &str, address: SocketAddr) -> Option<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
        let source: SocketAddr = format!("{source}:0").parse().ok()?;
        socket.bind(&source.into()).ok()?;
        socket.connect(&address.into()).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        Some(Client { reader: BufReader::new(socket.into()) })
    }

    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(octets)
    }

    /// Says that nothing more will come, and goes on reading.
    pub fn half_close(&self) -> io::Result<()> {
        self.reader.get_ref().shutdown(Shutdown::Write)
    }

    /// Ends the connection by a reset, as a host that crashed and came back does.
    pub fn reset(self) -> io::Result<()> {
        let socket = socket2::Socket::from(self.reader.into_inner());
        socket.set_linger(Some(Duration::ZERO))
    }

    /// Everything up to the end of the connection; a reset is an end too.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// One whole reply: its code and its lines.
    pub fn reply(&mut self) -> io::Result<(u16, String)> {
        let mut text = String::new();
        loop {
            let start = text.len();
            if self.reader.read_line(&mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = &text[start..];
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok());
                return Ok((code.ok_or_else(|| io::Error::other(format!("not a reply: {line:?}")))?, text));
            }
        }
    }

    pub fn expect(&mut self, class: u16) -> io::Result<String> {
        let (code, text) = self.reply()?;
        if code / 100 == class { Ok(text) } else { Err(io::Error::other(text)) }
    }

    pub fn command(&mut self, line: &str, class: u16) -> io::Result<String> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.expect(class)
    }

    /// Sends one message; `Ok` means that its 250 was read. The body must be dot-stuffed and end with CRLF.
    pub fn send(&mut self, from: &str, to: &[&str], body: &[u8]) -> io::Result<()> {
        self.command(&format!("MAIL FROM:<{from}>"), 2)?;
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>"), 2)?;
        }
        self.command("DATA", 3)?;
        self.write(body)?;
        self.write(b".\r\n")?;
        self.expect(2)?;
        Ok(())
    }
}
