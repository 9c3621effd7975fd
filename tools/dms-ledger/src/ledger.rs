//! The open ledger.

use std::time::Duration;

use dms_cli::{Context, Failure, Settings, random_id};
use dms_wire::{ErrorCode, Response};

use crate::owner::Owner;
use crate::store::{Store, StoreError};
use crate::takeover::settle_ended;
use crate::{schema, sqlite};

/// How long to wait, at most, for others that write to the ledger.
const PATIENCE: Duration = Duration::from_secs(20);

/// The open ledger.
pub(crate) struct Ledger {
    pub(crate) store: Box<dyn Store>,
    pub(crate) id: String,
    pub(crate) owner: Owner,
}

impl Ledger {
    /// Opens it, and makes what is missing of it.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) = sqlite::path_of(&settings.db_url) else {
            // The URL may hold a password: only its scheme is told.
            let scheme = settings.db_url.split_once("://").map_or("that", |(scheme, _)| scheme);
            return Err(Failure::permanent(format!(
                "DMS_DB_URL: no ledger engine for {scheme:?}; there is sqlite:///PATH"
            )));
        };
        let failed = |why: StoreError| {
            let text = format!("unable to open ledger {}: {why}", path.display());
            match why {
                StoreError::Unusable(_) => Failure::permanent(text),
                _ => Failure::temporary(text),
            }
        };
        let patience = settings.request_timeout.min(PATIENCE);
        let mut store = sqlite::Sqlite::open(&path, patience).map_err(failed)?;
        let new_id = random_id().context("unable to read", "/proc/sys/kernel/random/uuid")?;
        let id = schema::open(&mut store, &new_id).map_err(failed)?;
        Ok(Ledger { store: Box::new(store), id, owner: Owner::ourselves()? })
    }

    /// The ledger, with the operations of ended runs settled.
    pub(crate) fn open_settled(settings: &Settings) -> Result<Self, Failure> {
        let mut ledger = Ledger::open(settings)?;
        settle_ended(&mut *ledger.store, &ledger.owner)
            .context("unable to settle", "the ledger")?;
        Ok(ledger)
    }
}

/// The ledger, opened when it can be: while it cannot, each line is answered `database`.
pub(crate) struct Opened<'a> {
    settings: &'a Settings,
    open: fn(&Settings) -> Result<Ledger, Failure>,
    ledger: Option<Ledger>,
}

impl<'a> Opened<'a> {
    /// Tries at once: settings that no time will mend end the process.
    pub(crate) fn new(
        settings: &'a Settings,
        open: fn(&Settings) -> Result<Ledger, Failure>,
    ) -> Result<Self, Failure> {
        let ledger = match open(settings) {
            Err(why) if why.is_temporary() => {
                log::error!("{why}");
                None
            }
            opened => Some(opened?),
        };
        Ok(Opened { settings, open, ledger })
    }

    /// The ledger, or the answer to give without it.
    pub(crate) fn get(&mut self) -> Result<&mut Ledger, Response> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => (self.open)(self.settings)
                .map_err(|why| Response::error(ErrorCode::Database, why.to_string()))?,
        };
        Ok(self.ledger.insert(ledger))
    }
}
