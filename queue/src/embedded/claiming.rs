//! Handing out what nobody works on.
//!
//! Invariant: of each message that was stored before this opening, or was released, one claim is given. The ledger stays
//! locked for a walk, and a put is noted there before it can be seen, so that no walk hands out what came since.
//!
//! Not here: who may change what (ledger, writer).

use super::ledger::Ledger;
use super::store::Store;
use crate::SpoolId;
use crate::entry::Entry;
use crate::error::{Damage, SpoolError};
use crate::spool::{Claim, Claimed, Item, Page};

/// What is walked over.
pub(super) trait Shelf {
    fn entry(&self, id: SpoolId) -> Result<Entry, SpoolError>;
    fn page(&self, after: Option<SpoolId>, limit: usize) -> Result<Page, SpoolError>;
}

impl Shelf for Store {
    fn entry(&self, id: SpoolId) -> Result<Entry, SpoolError> {
        Store::entry(self, id)
    }

    fn page(&self, after: Option<SpoolId>, limit: usize) -> Result<Page, SpoolError> {
        Store::page(self, after, limit)
    }
}

/// The next entries that nobody works on, and the damaged ones among them.
///
/// # Errors
/// What keeps the shelf from being read, if nothing was taken before.
pub(super) fn claim(
    ledger: &mut Ledger,
    store: &impl Shelf,
    limit: usize,
) -> Result<(Vec<Claimed>, Vec<Damage>), SpoolError> {
    let (mut claimed, mut damaged) = (Vec::new(), Vec::new());
    while claimed.len() < limit {
        if let Some(id) = ledger.take_released() {
            match store.entry(id) {
                Ok(entry) => claimed.push(Claimed { claim: Claim { id, epoch: 0 }, entry }),
                Err(SpoolError::NotFound(_)) => {}
                Err(SpoolError::Damaged(damage)) => damaged.push(damage),
                Err(error) => {
                    ledger.release(id);
                    if claimed.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            }
            continue;
        }
        let Some(after) = ledger.cursor() else { break };
        let page = match store.page(after, limit - claimed.len()) {
            Ok(page) => page,
            // What was taken already must reach the caller; the error shows the next time.
            Err(_) if !claimed.is_empty() => break,
            Err(error) => return Err(error),
        };
        for item in page.items {
            match item {
                Item::Entry(entry) if ledger.is_old(entry.id) => {
                    claimed.push(Claimed { claim: Claim { id: entry.id, epoch: 0 }, entry: *entry });
                }
                Item::Damaged(damage) if !damage.quarantined => damaged.push(damage),
                _ => {}
            }
        }
        ledger.advance(page.next);
    }
    Ok((claimed, damaged))
}
