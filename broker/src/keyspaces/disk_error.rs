//! Why a disk did not do what it was asked.

use std::error::Error;
use std::io;
use std::sync::Arc;

/// Why a disk did not do what it was asked. All who wait for one commit share it, so it can be cloned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store on disk failed")]
pub struct DiskError(#[source] Arc<dyn Error + Send + Sync>);

/// A database that could not be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("it is closed after an error, until it can be opened anew")]
struct Closed;

impl DiskError {
    /// One with this cause.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    pub(super) fn closed() -> Self {
        Self::new(Closed)
    }

    /// The cause.
    pub fn cause(&self) -> Arc<dyn Error + Send + Sync> {
        Arc::clone(&self.0)
    }

    /// Whether the disk has no room, or none for this user or process. It may have some later.
    pub fn is_no_room(&self) -> bool {
        is_no_room(&*self.0)
    }

    /// Whether it may work once the database was opened anew, though perhaps not at the first time: there was no room,
    /// or one of the database's own threads could not write and it takes nothing more.
    pub fn is_mendable(&self) -> bool {
        let database = || causes(&*self.0).find_map(|error| error.downcast_ref());
        let gave_up = |error: &fjall::Error| matches!(error, fjall::Error::Poisoned | fjall::Error::Locked);
        self.is_no_room() || database().is_some_and(gave_up) || self.0.is::<Closed>()
    }
}

/// Whether it all comes from a disk without room.
pub(crate) fn is_no_room(error: &(dyn Error + 'static)) -> bool {
    let no_room = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    io_cause(error).is_some_and(|error| no_room.contains(&error.kind()))
}

/// The I/O error behind `error`, if there is one.
pub(super) fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}
