//! Which node this is: an id made at each start, by which it has its leases. Kept in the data
//! directory, so that the next start there, which holds the directory's lock, knows whose leases
//! nobody renews any more, and doesn't wait for them to run out.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use uuid::Uuid;

const FILE: &str = "node";

/// A node's id, and the one that it had before in this place.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub(super) id: Uuid,
    pub(super) former: Option<Uuid>,
}

impl Node {
    /// One that has no place of its own.
    pub fn anywhere() -> Self {
        Self { id: Uuid::new_v4(), former: None }
    }

    /// Its id.
    pub const fn id(self) -> Uuid {
        self.id
    }

    /// The id that it had before in this place.
    pub const fn former(self) -> Option<Uuid> {
        self.former
    }

    /// The node of that data directory, whose lock the caller has. The file is a help and no more:
    /// if it can't be read, the former one's leases run out by themselves.
    ///
    /// # Errors
    /// When the new id can't be written.
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let (path, id) = (data_dir.join(FILE), Uuid::new_v4());
        let former = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the former node's id can't be \
                    read");
                None
            }
        };
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, id.to_string())?;
        std::fs::rename(fresh, path)?;
        Ok(Self { id, former })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_node_of_a_place_knows_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let first = Node::of(dir.path()).unwrap();
        assert_eq!(first.former, None);
        assert_eq!(Node::of(dir.path()).unwrap().former, Some(first.id));
        std::fs::write(dir.path().join(FILE), "cut of").unwrap();
        assert_eq!(Node::of(dir.path()).unwrap().former, None);
    }
}
