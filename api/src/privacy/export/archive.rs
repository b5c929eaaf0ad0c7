//! One ZIP archive, made on disk in files that have no name: whatever ends the program, nothing of
//! a person is left lying about. Memory holds a piece at a time.

use std::{
    fs::File,
    io::{self, Cursor, Read, Seek, Write as _},
};

use tokio::io::{AsyncWriteExt, BufWriter};
use zip::{ZipWriter, write::SimpleFileOptions};

/// An archive that is being made.
pub(super) struct Archive(Option<ZipWriter<File>>);

impl Archive {
    /// An empty one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Some(ZipWriter::new(tempfile::tempfile()?).set_auto_large_file())))
    }

    /// Adds a file from memory.
    pub(super) async fn add(&mut self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.copy(name, Cursor::new(bytes)).await
    }

    /// Adds a file from disk.
    pub(super) async fn add_spool(&mut self, name: &str, spool: Spool) -> io::Result<()> {
        let file = spool.finished().await?;
        self.copy(name, file).await
    }

    /// Away from the threads that serve: it compresses.
    async fn copy(&mut self, name: &str, mut from: impl Read + Send + 'static) -> io::Result<()> {
        let mut zip = self.0.take().ok_or_else(broken)?;
        let name = name.to_owned();
        let added = tokio::task::spawn_blocking(move || {
            zip.start_file(name, SimpleFileOptions::default()).map_err(io::Error::other)?;
            io::copy(&mut from, &mut zip)?;
            Ok::<_, io::Error>(zip)
        });
        self.0 = Some(added.await.map_err(io::Error::other)??);
        Ok(())
    }

    /// The whole of it, to be read from its beginning.
    pub(super) async fn finished(mut self) -> io::Result<File> {
        let zip = self.0.take().ok_or_else(broken)?;
        let finished = tokio::task::spawn_blocking(move || {
            let mut file = zip.finish().map_err(io::Error::other)?;
            file.flush()?;
            file.rewind()?;
            Ok::<_, io::Error>(file)
        });
        finished.await.map_err(io::Error::other)?
    }
}

fn broken() -> io::Error {
    io::Error::other("the archive broke off before")
}

/// A file of the archive that grows beside others, on disk and without a name.
pub(super) struct Spool(BufWriter<tokio::fs::File>);

impl Spool {
    /// An empty one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::new(tokio::fs::File::from_std(tempfile::tempfile()?))))
    }

    /// Adds to it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    async fn finished(mut self) -> io::Result<File> {
        self.0.flush().await?;
        let mut file = self.0.into_inner().into_std().await;
        file.rewind()?;
        Ok(file)
    }
}
