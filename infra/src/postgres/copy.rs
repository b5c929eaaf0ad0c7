//! Rows in Postgres's binary COPY format (PostgreSQL manual, "COPY", File Formats).
//!
//! One COPY of a batch costs the server less than one multi-row insert of it: no parse of arrays,
//! no executor between the wire and the table.

use punchtrail_protocol::{Digest, Position};
use sqlx::{PgConnection, postgres::PgCopyIn};

/// Postgres counts microseconds from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The type `text` (pg_type.dat in the source).
const TEXT_OID: i32 = 25;
/// How much is handed to the socket at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Rows being gathered for one table.
#[derive(Debug)]
pub struct Rows {
    bytes: Vec<u8>,
    fields: i16,
    count: usize,
}

impl Rows {
    /// For rows of so many columns.
    pub fn new(fields: i16) -> Self {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, fields, count: 0 }
    }

    /// Begins the next row: a field for each column follows.
    pub fn row(&mut self) -> Row<'_> {
        self.count += 1;
        self.bytes.extend_from_slice(&self.fields.to_be_bytes());
        Row { bytes: &mut self.bytes, left: self.fields }
    }

    /// Sends the rows, and checks that Postgres took every one. `statement` is a `copy … from stdin
    /// (format binary)`.
    ///
    /// # Errors
    /// When the database refuses a row, or is out of reach.
    pub async fn copy_into(
        self,
        connection: &mut PgConnection,
        statement: &str,
    ) -> Result<(), sqlx::Error> {
        if self.count == 0 {
            return Ok(());
        }
        let copy = connection.copy_in_raw(statement).await?;
        Copying { copy, rows: self }.finish().await
    }
}

/// Rows on their way: Postgres writes the first ones while the last are still being made.
pub struct Copying<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    rows: Rows,
}

impl<'c> Copying<'c> {
    /// Begins `statement`, a `copy … from stdin (format binary)` of so many columns.
    ///
    /// # Errors
    /// When the database refuses the statement, or is out of reach.
    pub async fn begin(
        connection: &'c mut PgConnection,
        statement: &str,
        fields: i16,
    ) -> Result<Self, sqlx::Error> {
        let copy = connection.copy_in_raw(statement).await?;
        Ok(Self { copy, rows: Rows::new(fields) })
    }

    /// Begins the next row, and sends those before it once they are enough.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn row(&mut self) -> Result<Row<'_>, sqlx::Error> {
        if self.rows.bytes.len() >= CHUNK_BYTES {
            self.send().await?;
        }
        Ok(self.rows.row())
    }

    async fn send(&mut self) -> Result<(), sqlx::Error> {
        for chunk in self.rows.bytes.chunks(CHUNK_BYTES) {
            self.copy.send(chunk).await?;
        }
        self.rows.bytes.clear();
        Ok(())
    }

    /// Sends the rest, and checks that Postgres took every row.
    ///
    /// # Errors
    /// When the database refuses a row, or is out of reach.
    pub async fn finish(mut self) -> Result<(), sqlx::Error> {
        self.rows.bytes.extend_from_slice(&(-1i16).to_be_bytes());
        self.send().await?;
        let (taken, count) = (self.copy.finish().await?, self.rows.count);
        if taken != count as u64 {
            return Err(sqlx::Error::Protocol(format!("COPY took {taken} rows of {count}")));
        }
        Ok(())
    }
}

/// One row, field by field in the order of the statement's columns.
#[derive(Debug)]
pub struct Row<'a> {
    bytes: &'a mut Vec<u8>,
    left: i16,
}

impl Row<'_> {
    fn field(&mut self, value: &[u8]) -> &mut Self {
        debug_assert!(self.left > 0, "more fields than columns");
        self.left -= 1;
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// A `text`.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    /// A `bigint`.
    pub fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// A `bigint`, or null.
    pub fn bigint_or_null(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.bigint(value),
            None => self.null(),
        }
    }

    /// A position, as a `bigint`.
    pub fn position(&mut self, value: Position) -> &mut Self {
        self.bigint(value.to_db())
    }

    /// A `boolean`.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.field(&[u8::from(value)])
    }

    /// A `timestamptz`, in microseconds since 1970.
    pub fn timestamp_us(&mut self, value_us: i64) -> &mut Self {
        self.bigint(value_us - POSTGRES_EPOCH_US)
    }

    /// A digest, as `bytea`.
    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.field(&value.0)
    }

    /// A `uuid`.
    pub fn uuid(&mut self, value: uuid::Uuid) -> &mut Self {
        self.field(value.as_bytes())
    }

    /// A `text`, or null.
    pub fn text_or_null(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    /// A `uuid`, or null.
    pub fn uuid_or_null(&mut self, value: Option<uuid::Uuid>) -> &mut Self {
        match value {
            Some(value) => self.uuid(value),
            None => self.null(),
        }
    }

    /// A `text[]`; null when it is empty.
    pub fn texts_or_null(&mut self, values: &[&str]) -> &mut Self {
        if values.is_empty() {
            return self.null();
        }
        // One dimension, no nulls, elements of type text, counted from 1 (array_send in the
        // source).
        let length = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes();
        let mut array = Vec::new();
        for word in [1_i32, 0, TEXT_OID] {
            array.extend_from_slice(&word.to_be_bytes());
        }
        array.extend_from_slice(&length(values.len()));
        array.extend_from_slice(&1_i32.to_be_bytes());
        for value in values {
            array.extend_from_slice(&length(value.len()));
            array.extend_from_slice(value.as_bytes());
        }
        self.field(&array)
    }

    /// Nothing.
    pub fn null(&mut self) -> &mut Self {
        debug_assert!(self.left > 0, "more fields than columns");
        self.left -= 1;
        self.bytes.extend_from_slice(&(-1i32).to_be_bytes());
        self
    }
}
