//! `bench read`: explanations by id over HTTP, beside the bare row by its key from pgbench,
//! prepared; what it costs to ask who asks; and what people who rule on punches ask for, when
//! there is much of it.

mod callers;
mod office;

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use punchtrail_tests::{Installation, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    append::http,
    database::Cluster,
    load,
    report::{Aim, Report, rate},
};

/// Both sides have as many connections, each with one request on its way.
const CONNECTIONS: usize = 8;

/// What to measure, and how much of it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many punches there are to ask for.
    #[arg(long, default_value_t = 20_000)]
    punches: usize,
    /// For how long each side is asked, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many punches the ledger of a year has whose figures are read; 0 to leave that out.
    #[arg(long, default_value_t = 1_000_000)]
    year_punches: u64,
    /// How many reviews are open when a page of them is compared with one of a hundred.
    #[arg(long, default_value_t = 100_000)]
    reviews: u64,
}

/// Measures explanations beside the bare row.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let url = cluster.empty().await?;
    let place = Installation::with_database(&url)?;
    let mut server = Server::start(&place).await?;
    let pool = sqlx::PgPool::connect(&url).await?;
    http::fill(&server, &place, &pool, options.punches).await?;
    sqlx::query("vacuum analyze").execute(&pool).await?;
    let key = place.cli().text(&["key", "new"], "key").await?;

    let mut report = Report::default();
    let bare = pgbench(&cluster, &url, &options)?;
    report.add("bare_row", bare, "rows/s", None);
    let address = server.address()?;
    let askers = callers::make(&server, &pool, &key).await?;
    let each = Duration::from_secs(options.seconds);
    let started = Instant::now();
    let bearer = format!("authorization: Bearer {key}");
    let mut latencies_us = asked(address, &bearer, options.punches, each).await?;
    report.add("explanation", rate(latencies_us.len(), started), "answers/s", Some("bare_row"));
    latencies_us.sort_unstable();
    for (name, part) in [("explanation_p50", 50), ("explanation_p99", 99)] {
        let at = latencies_us.len() * part / 100;
        let latency_us = latencies_us.get(at).copied().unwrap_or_default();
        report.add(name, latency_us as f64, "µs", None);
    }
    let mut aims = callers::measure(address, askers, options.punches, each, &mut report).await?;
    pool.close().await;
    server.terminate().await?;
    if options.year_punches > 0 {
        let (punches, reviews) = (options.year_punches, options.reviews);
        aims.extend(office::measure(&cluster, punches, reviews, &mut report).await?);
    }
    cluster.stop().await?;
    aims.iter().for_each(Aim::print);
    report.finish("read")
}

/// The bare row: a punch's first event by its key.
fn pgbench(cluster: &Cluster, url: &str, options: &Options) -> anyhow::Result<f64> {
    let script = tempfile::NamedTempFile::new()?;
    let first = load::numbered(0).to_string();
    let (head, _) = first.split_at(first.len() - 12);
    let statement = format!(
        "\\set n random(0, {})\nselect * from events where aggregate_type = 'punch' and \
         aggregate_id = '{head}' || lpad(to_hex(cast(:n as bigint)), 12, '0') and sequence = 1;\n",
        options.punches - 1
    );
    std::fs::write(script.path(), statement)?;
    let output = Command::new(cluster.program("pgbench")?)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={CONNECTIONS}"))
        .arg(format!("--time={}", options.seconds))
        .arg("--file")
        .arg(script.path())
        .arg(url)
        .output()
        .context("run pgbench")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let tps =
        said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match tps {
        Some(tps) => Ok(tps),
        None => bail!("pgbench said: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Asks on all connections for that long, and gives the latencies in microseconds.
async fn asked(
    address: SocketAddr,
    header: &str,
    punches: usize,
    each: Duration,
) -> anyhow::Result<Vec<u64>> {
    let deadline = Instant::now() + each;
    let askers = (0..CONNECTIONS)
        .map(|n| tokio::spawn(ask(address, header.to_owned(), punches, n, deadline)));
    let mut latencies_us = Vec::new();
    for asker in askers.collect::<Vec<_>>() {
        latencies_us.extend(asker.await??);
    }
    Ok(latencies_us)
}

/// Asks for one explanation after the other on one connection, and gives the latencies. Plain
/// HTTP/1.1 on a socket, so that the asking costs little beside the answering.
async fn ask(
    address: SocketAddr,
    header: String,
    punches: usize,
    seed: usize,
    deadline: Instant,
) -> anyhow::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies_us = Vec::new();
    let mut answer = Vec::with_capacity(64 << 10);
    let mut at = seed * 7_919;
    while Instant::now() < deadline {
        at = (at + 104_729) % punches;
        let punch = load::numbered(at as u64);
        let request = format!(
            "GET /v1/punches/{punch}/explanation HTTP/1.1\r\nhost: bench\r\n\
             {header}\r\n\r\n"
        );
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream, &mut answer).await?;
        latencies_us.push(u64::try_from(asked.elapsed().as_micros())?);
    }
    Ok(latencies_us)
}

async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            bail!("the server answered {head}");
        }
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .context("an answer without a length")?;
        while answer.len() < end + 4 + length {
            if stream.read_buf(answer).await? == 0 {
                bail!("the server closed the connection");
            }
        }
        return Ok(());
    }
}
