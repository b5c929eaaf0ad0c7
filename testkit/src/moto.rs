//! Moto: AWS's services as a process on this machine, for tests of what speaks to them.
//!
//! One server has all services, each empty at first. It runs from Python packages that `./dev test`
//! brings, takes whatever port is free, and ends when it is dropped, or when this process ends,
//! however it does: it reads from a pipe that closes then.
//!
//! It is slow (a thousand messages take a quarter of a minute) and kind: what it accepts AWS may
//! refuse. It shows that calls are well formed and that their answers are understood.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::Context;

use crate::{PATIENCE, here::brought, not_run};

/// Names the folder of Moto's Python packages.
const PACKAGES: &str = "PUNCHTRAIL_TEST_MOTO";
/// Where `./dev` brings them to, in the target directory. The version is also in `.ci/moto.txt`.
const BROUGHT_TO: &str = "tools/moto-5.2.5";
/// In order of preference, as in `./dev`.
const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];
/// Says its port once it listens, and ends with whoever holds the other end of its input.
const SERVE: &str = "\
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
";

/// A server of AWS's services. Ended when dropped.
#[derive(Debug)]
pub struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts one; none where this machine has no Moto, which is then said.
    ///
    /// # Panics
    /// When it doesn't come up; and under `CI`, when there is none.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let packages = brought(PACKAGES, BROUGHT_TO);
        if !packages.is_dir() {
            not_run(format_args!(
                "there is no Moto in {}: `./dev setup` brings it, or {PACKAGES} names it",
                packages.display()
            ));
            return None;
        }
        match Self::of(&packages) {
            Ok(moto) => Some(moto),
            Err(error) => panic!("Moto didn't start: {error:#}"),
        }
    }

    fn of(packages: &Path) -> anyhow::Result<Self> {
        let mut process = PYTHONS
            .into_iter()
            .find_map(|python| {
                Command::new(python)
                    .args(["-c", SERVE])
                    .env("PYTHONPATH", packages)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    // It logs each request there.
                    .stderr(Stdio::null())
                    .spawn()
                    .ok()
            })
            .context("there is no python3")?;
        let said = process.stdout.take().context("it has no output")?;
        // From here on it is ended, whatever comes.
        let mut moto = Self { process, port: 0 };
        moto.port = port(said)?;
        Ok(moto)
    }

    /// What `AWS_ENDPOINT_URL` would be set to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, to be frozen, say.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The port that it says. It listens when it does.
fn port(said: ChildStdout) -> anyhow::Result<u16> {
    let (give, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(said).read_line(&mut line);
        drop(give.send(read.map(|_| line)));
    });
    let line = line.recv_timeout(PATIENCE).context("it said nothing")??;
    line.trim().parse().with_context(|| format!("it ended, or said no port but {line:?}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn it_answers_and_is_gone_when_dropped() {
        let Some(moto) = Moto::start() else { return };
        let there = ("127.0.0.1", moto.port);
        let mut line = TcpStream::connect(there).unwrap();
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = b"GET /moto-api/ HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
        line.write_all(ask).unwrap();
        let mut answer = [0; 12];
        line.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        drop(moto);
        assert!(TcpStream::connect(there).is_err());
    }
}
