//! A highly available Postgres of stock parts: three nodes by streaming replication, of which each
//! may be the primary, and HAProxy in front. Who is promoted when is the test's to say, so that
//! every fault happens on purpose; what usually decides it, Patroni, has a test of its own.
//!
//! A commit waits for one of the other two. Everybody reaches a node by its gate, standbys and
//! HAProxy alike, so a node can be cut off from all at once. Everything is in one folder and on
//! loopback; dropping a [`Replicas`] ends it all.

mod node;
mod patroni;
mod proxy;

pub use patroni::Patroni;

use anyhow::{Context, ensure};
use futures::future::{join_all, try_join_all};
use punchtrail_testkit::{PATIENCE, eventually, not_run};

use crate::{DataDir, gate::Line};
use node::{Node, Programs, Replication, USER};
use proxy::Proxy;

/// What the programs under test keep their things in.
const DATABASE: &str = "punchtrail";
/// As few as let one die while the others still wait for each other.
const NODES: usize = 3;

/// The nodes and what stands in front.
#[derive(Debug)]
pub struct Replicas {
    // Dropped in this order.
    proxy: Proxy,
    nodes: Vec<Node>,
    primary: usize,
    asynchronous: bool,
    _folder: DataDir,
}

impl Replicas {
    /// Starts everything, with an empty database; none where this machine has no HAProxy, which is
    /// then said.
    ///
    /// # Errors
    /// When something doesn't come up.
    ///
    /// # Panics
    /// Under `CI`, when it can't be run here.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let Some(haproxy) = proxy::program() else {
            not_run("there is no haproxy: `./dev setup` or `apt-get install haproxy` brings it");
            return Ok(None);
        };
        let folder = DataDir::fresh()?;
        let programs = Programs::find(&folder)?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(Node::new(number, &folder, &programs).await?);
        }
        let gates: Vec<u16> = nodes.iter().map(Node::reached_at).collect();
        let (first, others) = nodes.split_first_mut().context("a node")?;
        first.create().await?;
        // The others come after the database: its creation can't wait for them.
        first.run_alone(&format!("create database {DATABASE}")).await?;
        try_join_all(others.iter_mut().map(|node| node.copy_of(first))).await?;
        let proxy = Proxy::start(&haproxy, &gates, &folder).await?;
        let replicas = Self { proxy, nodes, primary: 0, asynchronous: false, _folder: folder };
        replicas.commits_wait_for_standbys(NODES - 1).await?;
        Ok(Some(replicas))
    }

    /// The database's URL, through HAProxy.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// The database's URL without HAProxy: one with all nodes.
    pub fn url_of_all(&self) -> String {
        let host = |node: &Node| format!("127.0.0.1:{}", node.reached_at());
        let hosts = self.nodes.iter().map(host).collect::<Vec<_>>().join(",");
        format!(
            "postgres://{USER}@{hosts}/{DATABASE}?sslmode=disable&target_session_attrs=read-write"
        )
    }

    /// The node that is the primary.
    pub fn primary(&self) -> usize {
        self.primary
    }

    /// The nodes that aren't.
    pub fn standbys(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| *node != self.primary).collect()
    }

    /// Ends a node as a machine ends that loses its power: kill -9 of all its processes.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn kill_9(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].kill_9()
    }

    /// Stops a node where it stands (SIGSTOP of all its processes): it holds everything and answers
    /// nobody.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn freeze(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].freeze()
    }

    /// Lets it go on as if nothing had been.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn thaw(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].thaw()
    }

    /// Cuts the line on which others reach a node: it works on and hears nothing.
    pub fn cut_off(&self, node: usize) {
        self.nodes[node].gate().set(Line::Silent);
    }

    /// The line carries again; what stood on it is reset.
    pub fn connect_again(&self, node: usize) {
        self.nodes[node].gate().set(Line::Open);
    }

    /// Makes the standby that has received most the primary, as whatever steers a cluster has to,
    /// and gives its number.
    ///
    /// # Errors
    /// When no standby can be promoted.
    pub async fn fail_over(&mut self) -> anyhow::Result<usize> {
        let standbys = self.standbys();
        let received = join_all(standbys.iter().map(|&node| self.nodes[node].received())).await;
        let (_, best) = standbys
            .iter()
            .zip(received)
            .filter_map(|(&node, received)| Some((received.ok()?, node)))
            .max()
            .context("no standby is there to be promoted")?;
        self.nodes[best].promote().await?;
        self.primary = best;
        self.let_standbys_follow()?;
        Ok(best)
    }

    /// How standbys find the primary. They are told after each failover, as Patroni does: left to
    /// try all nodes, one that waits for the answer of a frozen one would wait for ever.
    fn replication(&self) -> Replication {
        let follows = Some(self.nodes[self.primary].reached_at());
        Replication { follows, asynchronous: self.asynchronous }
    }

    /// Makes a node a standby of the primary again, whatever it was and did; what it has and the
    /// primary hasn't is dropped.
    ///
    /// # Errors
    /// When it doesn't follow.
    pub async fn rejoin(&mut self, node: usize) -> anyhow::Result<()> {
        ensure!(node != self.primary, "the primary follows nobody");
        let primary = self.nodes[self.primary].direct();
        self.nodes[node].rewind_to(&primary).await?;
        self.start_again(node).await
    }

    /// Starts a standby that was killed.
    ///
    /// # Errors
    /// When it doesn't follow.
    pub async fn start_again(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].configure(&self.replication())?;
        self.nodes[node].serve().await?;
        self.follows(node).await
    }

    /// Starts a primary that was killed, as the primary that it was.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub async fn start_alone(&mut self, node: usize) -> anyhow::Result<()> {
        ensure!(node == self.primary, "only the primary starts alone");
        self.nodes[node].serve().await
    }

    /// From now on commits wait for nobody, and the standbys get nothing any more: what is
    /// acknowledged is lost with the primary.
    ///
    /// # Errors
    /// When the nodes don't take the settings.
    pub async fn leave_standbys_behind(&mut self) -> anyhow::Result<()> {
        self.asynchronous = true;
        for node in &self.nodes {
            node.configure(&Replication { follows: None, asynchronous: true })?;
        }
        eventually("nobody to follow the primary", PATIENCE, async || {
            let following = "select count(*) from pg_stat_replication";
            Ok((self.nodes[self.primary].number(following).await? == 0).then_some(()))
        })
        .await
    }

    /// Standbys follow whoever is the primary now.
    ///
    /// # Errors
    /// When the nodes don't take the settings.
    pub fn let_standbys_follow(&self) -> anyhow::Result<()> {
        for node in self.standbys() {
            self.nodes[node].configure(&self.replication())?;
        }
        Ok(())
    }

    async fn follows(&self, node: usize) -> anyhow::Result<()> {
        let name = self.nodes[node].name();
        let there = format!(
            "select count(*) from pg_stat_replication where application_name = '{name}' \
             and state = 'streaming'"
        );
        eventually(format!("{name} to follow"), PATIENCE, async || {
            let there = self.nodes[self.primary].number(&there).await;
            Ok((there? == 1).then_some(()))
        })
        .await
    }

    async fn commits_wait_for_standbys(&self, standbys: usize) -> anyhow::Result<()> {
        let counted = "select count(*) from pg_stat_replication where sync_state = 'quorum'";
        eventually(format!("{standbys} synchronous standbys"), PATIENCE, async || {
            let counted = self.nodes[self.primary].number(counted).await;
            Ok((counted? >= i64::try_from(standbys)?).then_some(()))
        })
        .await
    }
}
