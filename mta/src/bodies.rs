//! How much of all messages on their way out is in memory.
//!
//! Invariant: bodies that are held take no more than the budget, and beside them at most [`READERS`] messages are
//! being read whose size is not known yet. Who waits for room holds none. Room is given back by whoever drops
//! [`Held`], on every path: an end, a failure, a panic, a task that is cut off.
//!
//! Not here: bodies on their way in (core's `Budget`, at the servers).

use std::sync::Arc;

use postwright_queue::{Loaded, Spool, SpoolError, SpoolId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most messages that are read from the spool at a time.
const READERS: usize = 16;
/// What room is counted in, in octets.
const UNIT: usize = 1024;

/// The budget.
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
    units: u32,
    readers: Semaphore,
}

/// Room that is taken; dropping it gives it back.
pub(crate) struct Held {
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    /// A budget of so many octets, rounded up to a KiB.
    pub(crate) fn new(octets: usize) -> Bodies {
        let units = octets.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS.min(1 << 30));
        let counted = u32::try_from(units).unwrap_or(1 << 30);
        Bodies { room: Arc::new(Semaphore::new(units)), units: counted, readers: Semaphore::new(READERS) }
    }

    /// Octets that are held, rounded up to a KiB each.
    pub(crate) fn in_use(&self) -> usize {
        let free = self.room.available_permits();
        usize::try_from(self.units).unwrap_or(usize::MAX).saturating_sub(free).saturating_mul(UNIT)
    }

    /// Reads a message once there is room for it. A message that is larger than the budget has it for itself.
    ///
    /// # Errors
    /// The spool's.
    pub(crate) async fn load(&self, spool: &dyn Spool, id: SpoolId) -> Result<(Loaded, Held), SpoolError> {
        let loaded = self.read(spool, id).await?;
        let needed = self.needed(loaded.body.len());
        if let Ok(room) = self.room.clone().try_acquire_many_owned(needed) {
            return Ok((loaded, Held { _room: room }));
        }
        // Waiting must cost nothing: the message is read again when there is room. Those who wait are served in
        // their order, so that a large one is not passed by for ever.
        drop(loaded);
        let room = self.room.clone().acquire_many_owned(needed).await.map_err(|_| SpoolError::Closed)?;
        let loaded = self.read(spool, id).await?;
        Ok((loaded, Held { _room: room }))
    }

    async fn read(&self, spool: &dyn Spool, id: SpoolId) -> Result<Loaded, SpoolError> {
        // The semaphores are never closed.
        let _turn = self.readers.acquire().await.map_err(|_| SpoolError::Closed)?;
        spool.load(id).await
    }

    fn needed(&self, octets: usize) -> u32 {
        u32::try_from(octets.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postwright_core::{Envelope, Mailbox, Message, ReversePath, SeededEntropy, Timestamp};
    use postwright_queue::{Change, Entry, MemorySpool};

    use super::*;

    async fn spool(sizes: &[usize]) -> (MemorySpool, Vec<SpoolId>) {
        let (spool, entropy) = (MemorySpool::default(), SeededEntropy::new(1));
        let mut ids = Vec::new();
        for size in sizes {
            let now = Timestamp::from_secs(1_800_000_000);
            let id = SpoolId::new(now, &entropy);
            let to: Mailbox = "a@x.test".parse().unwrap();
            let envelope = Envelope::new(ReversePath::Null, [to]);
            let entry = Entry::new(id, envelope, *size as u64, Duration::from_secs(60), now);
            let body = Message::from_bytes(vec![b'x'; *size]);
            spool.commit(vec![Change::Put { entry, body }]).await.unwrap();
            ids.push(id);
        }
        (spool, ids)
    }

    #[tokio::test]
    async fn room_is_bounded_given_back_and_given_in_order() {
        let (spool, ids) = spool(&[3000, 2000, 9000, 100]).await;
        let bodies = Arc::new(Bodies::new(5 * UNIT));
        let (_, first) = bodies.load(&spool, ids[0]).await.unwrap();
        let (_, second) = bodies.load(&spool, ids[1]).await.unwrap();
        assert_eq!(bodies.in_use(), 5 * UNIT);
        let mut large = std::pin::pin!(bodies.load(&spool, ids[2]));
        let mut small = std::pin::pin!(bodies.load(&spool, ids[3]));
        let soon = Duration::from_millis(30);
        assert!(tokio::time::timeout(soon, &mut large).await.is_err(), "there is no room");
        assert!(tokio::time::timeout(soon, &mut small).await.is_err());
        drop(second);
        // The large one came first; the small one does not pass it by.
        assert!(tokio::time::timeout(soon, &mut small).await.is_err());
        drop(first);
        let (loaded, held) = large.await.unwrap();
        assert_eq!((loaded.body.len(), bodies.in_use()), (9000, 5 * UNIT));
        assert!(tokio::time::timeout(soon, &mut small).await.is_err(), "larger than the budget: it is alone");
        drop(held);
        let (_, held) = small.await.unwrap();
        assert_eq!(bodies.in_use(), UNIT);
        drop(held);
        // One that gives up waiting, and one that fails, leave nothing behind.
        let (_, held) = bodies.load(&spool, ids[2]).await.unwrap();
        assert!(tokio::time::timeout(soon, bodies.load(&spool, ids[0])).await.is_err());
        drop(held);
        let unknown = SpoolId::new(Timestamp::from_secs(1), &SeededEntropy::new(2));
        assert!(bodies.load(&spool, unknown).await.is_err());
        assert_eq!(bodies.in_use(), 0);
    }
}
